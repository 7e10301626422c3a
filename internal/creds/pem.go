package creds

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

const pemBegin = "-----BEGIN "

// file is where a setting's content comes from: what its value names, or the value itself where
// that is PEM text.
type file struct {
	setting string // how messages name the setting
	value   string
	read    func(ctx context.Context, name string) ([]byte, error)
}

func (o Options) file(variable, value string) file {
	return file{setting: o.setting(variable), value: value, read: o.read}
}

func (f file) inline() bool { return strings.Contains(f.value, pemBegin) }

// String names the setting and where its content lies, never the content.
func (f file) String() string {
	if f.inline() {
		return f.setting + " inline PEM"
	}
	return f.setting + " " + f.value
}

func (f file) content(ctx context.Context) ([]byte, error) {
	if f.inline() {
		return []byte(f.value), nil
	}
	content, err := f.read(ctx, f.value)
	if err != nil {
		// The path is in the message already.
		if failed, ok := errors.AsType[*fs.PathError](err); ok {
			err = failed.Err
		}
		return nil, fmt.Errorf("%s: %w", f, err)
	}
	return content, nil
}

// wrong is an error about f's content. The text must not come from the content, nor from a
// parser's error, which quotes it.
func (f file) wrong(what string) error { return fmt.Errorf("%s: %s", f, what) }

// roots has the certificates of one file.
func (o Options) roots(what Kind, variable, value string) (*source[*rootSet], error) {
	f := o.file(variable, value)
	s := fromFile(o, what, f, func(content []byte) (*rootSet, error) { return parseRoots(f, content) })
	return s, s.loadInline(f)
}

// pair has a certificate with its key, from two files that may lie in different directories.
func (o Options) pair(what Kind, certVariable, certValue, keyVariable, keyValue string) (*source[*tls.Certificate], error) {
	cert, key := o.file(certVariable, certValue), o.file(keyVariable, keyValue)
	s := newSource(o, what, cert.String()+" with "+key.String(), func(ctx context.Context, known digest) (*tls.Certificate, digest, error) {
		loaded, found, err := loadPair(ctx, cert, key, known)
		if err != nil {
			// Both files may have been in the middle of a rotation, which ends soon.
			loaded, found, err = loadPair(ctx, cert, key, known)
		}
		return loaded, found, err
	})
	s.changed = func(c *tls.Certificate) { o.expires(what, c.Leaf.NotAfter) }
	return s, s.loadInline(cert, key)
}

func loadPair(ctx context.Context, cert, key file, known digest) (*tls.Certificate, digest, error) {
	var keyPEM []byte
	var keyErr error
	var reading sync.WaitGroup
	// Side by side: the closer the reads, the smaller the chance to see two versions.
	reading.Go(func() { keyPEM, keyErr = key.content(ctx) })
	certPEM, certErr := cert.content(ctx)
	reading.Wait()
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, digest{}, err
	}
	certSum, keySum := sha256.Sum256(certPEM), sha256.Sum256(keyPEM)
	found := digest(sha256.Sum256(append(certSum[:], keySum[:]...)))
	if found == known {
		return nil, found, nil
	}
	loaded, err := parsePair(cert, key, certPEM, keyPEM)
	return loaded, found, err
}

// rootSet is the certificates of one file.
type rootSet struct {
	pool         *x509.CertPool
	certificates []*x509.Certificate
	// unused says what of the file gives no root, and why; empty where everything does.
	unused string
}

// certPool is nil where there is no set.
func (s *rootSet) certPool() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.pool
}

// parseRoots makes a pool of the certificates in content. A certificate that is whole but that Go does
// not accept is skipped, as bundles of many roots have such; a block that is not whole means
// that the file was being written.
func parseRoots(f file, content []byte) (*rootSet, error) {
	if torn(content) {
		return nil, f.wrong("holds an incomplete or damaged PEM block")
	}
	if !has(content, certificateBlock) {
		return nil, f.wrong("holds no PEM certificate")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, f.wrong("holds no valid certificate")
	}
	return &rootSet{pool: pool}, nil
}

// parsePair makes a certificate of the two contents; only a key that belongs to the first
// certificate does.
func parsePair(cert, key file, certPEM, keyPEM []byte) (*tls.Certificate, error) {
	switch {
	case torn(certPEM):
		return nil, cert.wrong("holds an incomplete or damaged PEM block")
	case !has(certPEM, certificateBlock):
		return nil, cert.wrong("holds no PEM certificate")
	case torn(keyPEM):
		return nil, key.wrong("holds an incomplete or damaged PEM block")
	case !has(keyPEM, keyBlock):
		return nil, key.wrong("holds no PEM private key")
	case has(keyPEM, encryptedBlock):
		return nil, key.wrong("the private key is encrypted; decrypt it first, with openssl pkey for example")
	}
	for block := range blocks(certPEM) {
		if !certificateBlock(block) {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, cert.wrong("holds no valid certificate")
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: does not hold the private key of %s", key, cert)
	}
	return &pair, nil
}

func certificateBlock(b *pem.Block) bool { return b.Type == "CERTIFICATE" }

func keyBlock(b *pem.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

// encryptedBlock knows both ways to encrypt a key: PKCS #8's, and OpenSSL's older one (RFC 1421).
func encryptedBlock(b *pem.Block) bool {
	return b.Type == "ENCRYPTED PRIVATE KEY" || keyBlock(b) && strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED")
}

func has(content []byte, kind func(*pem.Block) bool) bool {
	for block := range blocks(content) {
		if kind(block) {
			return true
		}
	}
	return false
}

// blocks yields the PEM blocks that are whole.
func blocks(content []byte) func(yield func(*pem.Block) bool) {
	return func(yield func(*pem.Block) bool) {
		for {
			var block *pem.Block
			block, content = pem.Decode(content)
			if block == nil || !yield(block) {
				return
			}
		}
	}
}

// torn says that content begins more PEM blocks than it holds whole ones. pem.Decode skips
// the others in silence, and a root or an intermediate certificate would be missing.
func torn(content []byte) bool {
	begun := bytes.Count(content, []byte("\n"+pemBegin))
	if bytes.HasPrefix(content, []byte(pemBegin)) {
		begun++
	}
	for range blocks(content) {
		begun--
	}
	return begun > 0
}
