// Certs writes the certificates that the examples use: of a certificate authority, of the gRPC and the HTTP server, and of the
// clients of both. Do not use them in production.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	exitFailed = 1
	exitUsage  = 2 // as package flag
)

// maxDays keeps the end of the validity within the range of dates in certificates.
const maxDays = 36500

// backdate is how long ago the validity begins, for peers whose clocks are behind.
const backdate = 5 * time.Minute

// serialBits is the length of a random serial number: short enough for the 20 octets of RFC 5280, section 4.1.2.2, and long
// enough to be unique.
const serialBits = 127

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("certs", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "certs", "write to this `folder`, and create it if needed")
	days := flags.Int("days", 365, "how many days the certificates are valid")
	force := flags.Bool("force", false, "replace files that exist")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "certs: unexpected argument %q: there are only flags, see -help\n", flags.Arg(0))
		return exitUsage
	case *dir == "":
		fmt.Fprintln(stderr, "certs: -dir must not be empty")
		return exitUsage
	case *days < 1 || *days > maxDays:
		fmt.Fprintf(stderr, "certs: -days must be from 1 to %d\n", maxDays)
		return exitUsage
	}
	if err := generate(*dir, *days, *force, stdout); err != nil {
		fmt.Fprintf(stderr, "certs: %v\n", err)
		return exitFailed
	}
	return 0
}

// pair is a certificate to issue.
type pair struct {
	name       string // of its files: name_crt.pem and name_key.pem
	commonName string
	usage      x509.ExtKeyUsage
	dnsNames   []string
	ips        []net.IP
}

func pairs() []pair {
	loopback := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return []pair{
		{
			name: "grpc_server", commonName: "grpc.domain.com", usage: x509.ExtKeyUsageServerAuth,
			// Some examples of the earlier tool's documentation use server.domain.com.
			dnsNames: []string{"grpc.domain.com", "server.domain.com", "localhost"}, ips: loopback,
		},
		{
			name: "http_server", commonName: "http.domain.com", usage: x509.ExtKeyUsageServerAuth,
			dnsNames: []string{"http.domain.com", "localhost"}, ips: loopback,
		},
		{name: "client", commonName: "client.domain.com", usage: x509.ExtKeyUsageClientAuth},
		{name: "proxy_client", commonName: "proxy-client.domain.com", usage: x509.ExtKeyUsageClientAuth},
	}
}

// file is a file to write.
type file struct {
	name    string
	mode    fs.FileMode
	content []byte
}

// generate writes all files. Without force it writes none if one of them exists.
func generate(dir string, days int, force bool, stdout io.Writer) error {
	files, err := issueAll(time.Now(), days)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if !force {
		if err := refuseExisting(dir, files); err != nil {
			return err
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := replace(path, f.mode, f.content); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(stdout, path); err != nil {
			return fmt.Errorf("print what was written: %w", err)
		}
	}
	return nil
}

func refuseExisting(dir string, files []file) error {
	var existing []string
	for _, f := range files {
		switch _, err := os.Lstat(filepath.Join(dir, f.name)); {
		case err == nil:
			existing = append(existing, f.name)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("look for existing files: %w", err)
		}
	}
	if len(existing) > 0 {
		return fmt.Errorf("%s has %s already: use -force to replace them, or another -dir", dir, strings.Join(existing, ", "))
	}
	return nil
}

// issueAll makes the CA and the certificates that it signs. It does not keep the CA's key, so that nobody can issue more
// certificates of this CA.
func issueAll(now time.Time, days int) ([]file, error) {
	notBefore, notAfter := now.Add(-backdate), now.AddDate(0, 0, days)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the CA's key: %w", err)
	}
	ca := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "grpc-health-http example CA"},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caPEM, err := sign(ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("issue the CA's certificate: %w", err)
	}
	files := []file{{name: "CA_crt.pem", mode: 0o644, content: caPEM}}
	for _, p := range pairs() {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate the key of %s: %w", p.name, err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode the key of %s: %w", p.name, err)
		}
		leaf := &x509.Certificate{
			Subject:     pkix.Name{CommonName: p.commonName},
			NotBefore:   notBefore,
			NotAfter:    notAfter,
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{p.usage},
			DNSNames:    p.dnsNames,
			IPAddresses: p.ips,
		}
		certPEM, err := sign(leaf, ca, &key.PublicKey, caKey)
		if err != nil {
			return nil, fmt.Errorf("issue the certificate of %s: %w", p.name, err)
		}
		files = append(files,
			file{name: p.name + "_crt.pem", mode: 0o644, content: certPEM},
			file{
				name: p.name + "_key.pem", mode: 0o600,
				content: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
			})
	}
	return files, nil
}

func sign(certificate, issuer *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("generate a serial number: %w", err)
	}
	certificate.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, certificate, issuer, public, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// replace writes a file atomically: a reader sees the old file or the new one, never a part. The file never has a wider mode.
func replace(path string, mode fs.FileMode, content []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			temporary.Close()
			os.Remove(temporary.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err := temporary.Write(content); err != nil {
		return err
	}
	if err := temporary.Chmod(mode); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
