package creds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

func newTransport(t *testing.T, s *settings.Upstream, o Options) Transport {
	t.Helper()
	transport, err := Upstream(s, o)
	if err != nil {
		t.Fatalf("Upstream: %v", err)
	}
	return transport
}

func TestPlaintextNeedsNoCredentials(t *testing.T) {
	t.Parallel()
	transport, err := Upstream(&settings.Upstream{}, Options{})
	if transport != nil || err != nil {
		t.Errorf("Upstream gave credentials or the error %v, want neither", err)
	}
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	ca, other := healthtest.NewCA(t), healthtest.NewCA(t)
	dir := t.TempDir()
	roots, otherRoots := ca.WriteFile(t, dir, "ca"), other.WriteFile(t, dir, "other")
	both := filepath.Join(dir, "both.pem")
	write(t, both, append(other.PEM(), ca.PEM()...))
	client, stranger := ca.Client(t), other.Client(t)
	cert, key := client.WriteFiles(t, dir, "client")
	strangerCert, strangerKey := stranger.WriteFiles(t, dir, "stranger")

	plain, mutual := serveTLS(t, ca.ServerTLS(t)), serveTLS(t, ca.MutualTLS(t))
	old := ca.ServerTLS(t)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	outdated := serveTLS(t, old)
	listing := ca.MutualTLS(t)
	listing.ClientAuth, listing.ClientCAs = tls.RequireAnyClientCert, x509.NewCertPool()
	listing.ClientCAs.AddCert(client.TLS.Leaf)
	picky := serveTLS(t, listing)
	expired := serveTLS(t, ca.ServerTLS(t, healthtest.Expired()))

	unknownAuthority := func(err error) bool {
		return isA[x509.UnknownAuthorityError](err) && strings.Contains(err.Error(), "CA_CERT")
	}
	wrongName := func(err error) bool {
		return isA[x509.HostnameError](err) && strings.Contains(err.Error(), "SNI_SERVER_NAME")
	}
	anyError := func(err error) bool { return err != nil }
	for _, test := range []struct {
		name     string
		settings settings.Upstream
		address  string
		host     string // localhost where empty
		want     string
		wantErr  func(error) bool
	}{
		{name: "own roots", settings: settings.Upstream{CACert: roots}, address: plain, want: "none"},
		{name: "inline roots", settings: settings.Upstream{CACert: string(ca.PEM())}, address: plain, want: "none"},
		{name: "several roots", settings: settings.Upstream{CACert: both}, address: plain, want: "none"},
		{name: "wrong roots", settings: settings.Upstream{CACert: otherRoots}, address: plain, wantErr: unknownAuthority},
		{name: "system roots", settings: settings.Upstream{}, address: plain, wantErr: unknownAuthority},
		{name: "address as name", settings: settings.Upstream{CACert: roots}, address: plain, host: "127.0.0.1", want: "none"},
		{name: "wrong name", settings: settings.Upstream{CACert: roots}, address: plain, host: "example.org", wantErr: wrongName},
		{name: "expired", settings: settings.Upstream{CACert: roots}, address: expired, wantErr: isA[x509.CertificateInvalidError]},
		{name: "no-verify", settings: settings.Upstream{NoVerify: true}, address: plain, host: "example.org", want: "none"},
		{name: "no-verify, expired", settings: settings.Upstream{NoVerify: true}, address: expired, want: "none"},
		{name: "outdated server", settings: settings.Upstream{NoVerify: true}, address: outdated, wantErr: anyError},
		{name: "client certificate", settings: settings.Upstream{CACert: roots, ClientCert: cert, ClientKey: key}, address: mutual, want: serial(client)},
		{name: "inline client certificate", settings: settings.Upstream{CACert: roots, ClientCert: string(client.CertPEM), ClientKey: string(client.KeyPEM)}, address: mutual, want: serial(client)},
		{name: "half-inline client certificate", settings: settings.Upstream{CACert: roots, ClientCert: cert, ClientKey: string(client.KeyPEM)}, address: mutual, want: serial(client)},
		{name: "client certificate with no-verify", settings: settings.Upstream{NoVerify: true, ClientCert: cert, ClientKey: key}, address: mutual, want: serial(client)},
		{name: "client certificate that is not asked for", settings: settings.Upstream{CACert: roots, ClientCert: cert, ClientKey: key}, address: plain, want: "none"},
		{name: "no client certificate", settings: settings.Upstream{CACert: roots}, address: mutual, wantErr: anyError},
		{name: "client certificate of another CA", settings: settings.Upstream{CACert: roots, ClientCert: strangerCert, ClientKey: strangerKey}, address: mutual, wantErr: anyError},
		{name: "client certificate of an issuer that the server does not list", settings: settings.Upstream{CACert: roots, ClientCert: cert, ClientKey: key}, address: picky, want: serial(client)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.settings.TLS = true
			o, _, _ := newOptions()
			tc, err := newTransport(t, &test.settings, o)(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			host := test.host
			if host == "" {
				host = "localhost"
			}
			told, info, err := handshake(t, tc, test.address, host)
			if test.wantErr != nil {
				if !test.wantErr(err) {
					t.Fatalf("handshake: error %v, want another", err)
				}
				return
			}
			if err != nil || told != test.want {
				t.Fatalf("the server saw the certificate %q (err %v), want %q", told, err, test.want)
			}
			if protocol := info.State.NegotiatedProtocol; protocol != "h2" {
				t.Errorf("protocol %q, want h2", protocol)
			}
		})
	}
}

func TestUpstreamRotation(t *testing.T) {
	t.Parallel()
	replace := func(t *testing.T, path string, content []byte) {
		write(t, path+".new", content)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		// lay lays the pair out and returns its paths and what replaces it.
		lay func(t *testing.T, first *healthtest.Leaf) (pairFiles, func(*healthtest.Leaf))
	}{
		{"rewrite", func(t *testing.T, first *healthtest.Leaf) (pairFiles, func(*healthtest.Leaf)) {
			files := newPairFiles(t, first)
			return files, func(next *healthtest.Leaf) { files.write(t, next) }
		}},
		{"rename", func(t *testing.T, first *healthtest.Leaf) (pairFiles, func(*healthtest.Leaf)) {
			files := newPairFiles(t, first)
			return files, func(next *healthtest.Leaf) {
				replace(t, files.cert, next.CertPEM)
				replace(t, files.key, next.KeyPEM)
			}
		}},
		{"symlink swap", func(t *testing.T, first *healthtest.Leaf) (pairFiles, func(*healthtest.Leaf)) {
			// As Kubernetes mounts secrets: the names lead through a link to a directory of one version.
			dir := t.TempDir()
			current := filepath.Join(dir, "..data")
			version := func(name string, leaf *healthtest.Leaf) {
				if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
				leaf.WriteFiles(t, filepath.Join(dir, name), "tls")
				if err := os.Symlink(name, current+".new"); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(current+".new", current); err != nil {
					t.Fatal(err)
				}
			}
			version("1", first)
			return pairFiles{filepath.Join(current, "tls_crt.pem"), filepath.Join(current, "tls_key.pem")},
				func(next *healthtest.Leaf) { version("2", next) }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ca := healthtest.NewCA(t)
			address := serveTLS(t, ca.MutualTLS(t))
			first, second := ca.Client(t), ca.Client(t)
			files, rotate := test.lay(t, first)
			o, c, e := newOptions()
			transport := newTransport(t, &settings.Upstream{
				TLS: true, CACert: string(ca.PEM()), ClientCert: files.cert, ClientKey: files.key,
			}, o)
			before := wantHandshake(t, transport, address, "localhost", serial(first))
			if got := e.lastExpiry(); !got.Equal(first.TLS.Leaf.NotAfter) {
				t.Errorf("expiry %v, want that of the first certificate", got)
			}

			c.advance(stale)
			if again := wantHandshake(t, transport, address, "localhost", serial(first)); again != before {
				t.Error("unchanged files gave other credentials")
			}
			rotate(second)
			if again := wantHandshake(t, transport, address, "localhost", serial(first)); again != before {
				t.Error("files were read again before they were 5 s old")
			}
			wantNoReload(t, e)

			c.advance(stale)
			wantHandshake(t, transport, address, "localhost", serial(second))
			wantReload(t, e, ClientCertificate, "")
			if got := e.lastExpiry(); !got.Equal(second.TLS.Leaf.NotAfter) {
				t.Errorf("expiry %v, want that of the second certificate", got)
			}
		})
	}
}

func TestRefreshAfterRotatedRoots(t *testing.T) {
	t.Parallel()
	before, after := healthtest.NewCA(t), healthtest.NewCA(t)
	roots := before.WriteFile(t, t.TempDir(), "ca")
	o, _, e := newOptions()
	transport := newTransport(t, &settings.Upstream{TLS: true, CACert: roots}, o)
	address := serveTLS(t, after.ServerTLS(t))

	tc, err := transport(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := handshake(t, tc, address, "localhost"); err == nil {
		t.Fatal("the handshake succeeded with the old roots")
	}
	again, err := transport(t.Context(), true)
	if err != nil || again != tc {
		t.Fatalf("error %v; want the same credentials while the file is the same", err)
	}
	write(t, roots, after.PEM())
	tc, err = transport(t.Context(), true)
	if err != nil || tc == again {
		t.Fatalf("error %v; want new credentials at once", err)
	}
	wantReload(t, e, UpstreamRoots, "")
	if _, _, err := handshake(t, tc, address, "localhost"); err != nil {
		t.Fatalf("handshake with the new roots: %v", err)
	}
}

func TestTornPair(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.MutualTLS(t))
	first, second := ca.Client(t), ca.Client(t)
	files := newPairFiles(t, first)
	write(t, files.key, second.KeyPEM)
	o, c, e := newOptions()
	transport := newTransport(t, &settings.Upstream{
		TLS: true, CACert: string(ca.PEM()), ClientCert: files.cert, ClientKey: files.key,
	}, o)
	mismatch := "CLIENT_KEY " + files.key + ": does not hold the private key of CLIENT_CERT " + files.cert

	// First: there is no good one yet.
	tc, err := transport(t.Context(), false)
	wantError(t, err, mismatch)
	if tc != nil {
		t.Error("credentials came with the error")
	}
	wantNoReload(t, e)
	write(t, files.key, first.KeyPEM)
	wantHandshake(t, transport, address, "localhost", serial(first))

	// Later: the last good one stays.
	c.advance(stale)
	write(t, files.cert, second.CertPEM)
	wantHandshake(t, transport, address, "localhost", serial(first))
	wantReload(t, e, ClientCertificate, "does not hold the private key of")
	write(t, files.key, second.KeyPEM[:len(second.KeyPEM)/2])
	c.advance(stale)
	wantHandshake(t, transport, address, "localhost", serial(first))
	wantReload(t, e, ClientCertificate, files.key+": holds an incomplete or damaged PEM block")
	write(t, files.key, second.KeyPEM)
	wantHandshake(t, transport, address, "localhost", serial(second))
	wantReload(t, e, ClientCertificate, "")
}

// A rotation that falls between the reads of the two files is over at the second look.
func TestTornPairIsReadOnceMore(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	first, second := ca.Client(t), ca.Client(t)
	r := newReader()
	r.set("cert.pem", first.CertPEM)
	r.set("key.pem", first.KeyPEM)
	o, c, e := newOptions()
	o.Read = r.read
	h, err := o.pair(ClientCertificate, "CLIENT_CERT", "cert.pem", "CLIENT_KEY", "key.pem")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.get(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	c.advance(stale)
	r.set("cert.pem", second.CertPEM)
	r.afterReads(2, func() { r.set("key.pem", second.KeyPEM) })
	got, err := h.get(t.Context(), false)
	if err != nil || got.Leaf.SerialNumber.Cmp(second.TLS.Leaf.SerialNumber) != 0 {
		t.Errorf("the pair is not the second one (err %v)", err)
	}
	wantReload(t, e, ClientCertificate, "")
}

func TestTornRoots(t *testing.T) {
	t.Parallel()
	one, two := healthtest.NewCA(t), healthtest.NewCA(t)
	roots := one.WriteFile(t, t.TempDir(), "ca")
	address := serveTLS(t, one.ServerTLS(t))
	o, c, e := newOptions()
	transport := newTransport(t, &settings.Upstream{TLS: true, CACert: roots}, o)
	wantHandshake(t, transport, address, "localhost", "none")

	// The first root of the bundle is whole, the second is not: it would be missing in silence.
	c.advance(stale)
	whole := append(two.PEM(), one.PEM()...)
	write(t, roots, whole[:len(whole)-40])
	wantHandshake(t, transport, address, "localhost", "none")
	wantReload(t, e, UpstreamRoots, "CA_CERT "+roots+": holds an incomplete or damaged PEM block")
	if err := os.Remove(roots); err != nil {
		t.Fatal(err)
	}
	c.advance(stale)
	wantHandshake(t, transport, address, "localhost", "none")
	wantReload(t, e, UpstreamRoots, "CA_CERT "+roots+": no such file or directory")
}

// A certificate is picked up although the roots beside it cannot be read, and the other way round.
func TestRootsAndPairRotateApart(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.MutualTLS(t))
	first, second := ca.Client(t), ca.Client(t)
	files := newPairFiles(t, first)
	roots := ca.WriteFile(t, t.TempDir(), "ca")
	o, c, _ := newOptions()
	transport := newTransport(t, &settings.Upstream{TLS: true, CACert: roots, ClientCert: files.cert, ClientKey: files.key}, o)
	wantHandshake(t, transport, address, "localhost", serial(first))
	write(t, roots, []byte("torn"))
	files.write(t, second)
	c.advance(stale)
	wantHandshake(t, transport, address, "localhost", serial(second))
}

func TestSecretsByName(t *testing.T) {
	t.Parallel()
	const certARN, keyARN = "arn:aws:secretsmanager:eu-west-1:1:secret:tls#cert", "arn:aws:secretsmanager:eu-west-1:1:secret:tls#key"
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.MutualTLS(t))
	client := ca.Client(t)
	r := newReader()
	o, _, _ := newOptions()
	o.Read = r.read
	transport := newTransport(t, &settings.Upstream{TLS: true, CACert: string(ca.PEM()), ClientCert: certARN, ClientKey: keyARN}, o)
	_, err := transport(t.Context(), false)
	wantError(t, err, "CLIENT_CERT "+certARN+": no such secret", keyARN)
	r.set(certARN, client.CertPEM)
	r.set(keyARN, client.KeyPEM)
	wantHandshake(t, transport, address, "localhost", serial(client))
}

func TestWrongInlinePEMIsAnErrorOfTheSettings(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	client, other := ca.Client(t), ca.Client(t)
	for _, test := range []struct {
		name     string
		settings settings.Upstream
		want     string
	}{
		{"roots", settings.Upstream{CACert: string(client.KeyPEM)}, "CA_CERT inline PEM: holds no PEM certificate"},
		{"pair", settings.Upstream{ClientCert: string(client.CertPEM), ClientKey: string(other.KeyPEM)}, "CLIENT_KEY inline PEM: does not hold the private key of CLIENT_CERT inline PEM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.settings.TLS = true
			_, err := Upstream(&test.settings, Options{})
			wantError(t, err, test.want)
		})
	}
}

func TestPEMErrors(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	leaf := ca.Client(t)
	block := func(kind string, content []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	}
	keyDER, _ := pem.Decode(leaf.KeyPEM)
	legacy := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: keyDER.Bytes})
	damaged := []byte(strings.Replace(string(leaf.CertPEM), "\nMI", "\n*I", 1))
	const certFile, keyFile = "CLIENT_CERT cert.pem: ", "CLIENT_KEY key.pem: "
	for _, test := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"empty certificate", nil, leaf.KeyPEM, certFile + "holds no PEM certificate"},
		{"DER certificate", leaf.TLS.Certificate[0], leaf.KeyPEM, certFile + "holds no PEM certificate"},
		{"key in the certificate's place", leaf.KeyPEM, leaf.KeyPEM, certFile + "holds no PEM certificate"},
		{"half a certificate", leaf.CertPEM[:100], leaf.KeyPEM, certFile + "holds an incomplete or damaged PEM block"},
		{"half a chain", append(ca.Client(t).CertPEM, leaf.CertPEM[:100]...), leaf.KeyPEM, certFile + "holds an incomplete or damaged PEM block"},
		{"damaged base64", damaged, leaf.KeyPEM, certFile + "holds an incomplete or damaged PEM block"},
		{"no X.509", block("CERTIFICATE", []byte("nonsense")), leaf.KeyPEM, certFile + "holds an incomplete or damaged PEM block: block 1 (CERTIFICATE): its content is no whole certificate"},
		{"empty key", leaf.CertPEM, nil, keyFile + "holds no PEM private key"},
		{"certificate in the key's place", leaf.CertPEM, leaf.CertPEM, keyFile + "holds no PEM private key"},
		{"half a key", leaf.CertPEM, leaf.KeyPEM[:60], keyFile + "holds an incomplete or damaged PEM block"},
		{"no key inside", leaf.CertPEM, block("PRIVATE KEY", []byte("nonsense")), keyFile + "holds an incomplete or damaged PEM block: block 1 (PRIVATE KEY): its content is no whole private key"},
		{"encrypted key", leaf.CertPEM, block("ENCRYPTED PRIVATE KEY", keyDER.Bytes), keyFile + "the private key is encrypted"},
		{"encrypted key, the older way", leaf.CertPEM, legacy, keyFile + "the private key is encrypted"},
		{"another's key", leaf.CertPEM, ca.Client(t).KeyPEM, keyFile + "does not hold the private key of"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newReader()
			r.set("cert.pem", test.cert)
			r.set("key.pem", test.key)
			_, err := newTransport(t, &settings.Upstream{TLS: true, ClientCert: "cert.pem", ClientKey: "key.pem"}, Options{Read: r.read})(t.Context(), false)
			wantError(t, err, test.want)
			wantNoContent(t, err, test.cert, test.key)
		})
	}
	for _, test := range []struct {
		name  string
		roots []byte
		want  string
	}{
		{"empty", nil, "holds no PEM certificate"},
		{"no PEM", []byte("nonsense"), "holds no PEM certificate"},
		{"a key", leaf.KeyPEM, "holds no PEM certificate"},
		{"no X.509", block("CERTIFICATE", []byte("nonsense")), "holds an incomplete or damaged PEM block"},
	} {
		t.Run("roots/"+test.name, func(t *testing.T) {
			t.Parallel()
			r := newReader()
			r.set("ca.pem", test.roots)
			_, err := newTransport(t, &settings.Upstream{TLS: true, CACert: "ca.pem"}, Options{Read: r.read})(t.Context(), false)
			wantError(t, err, "CA_CERT ca.pem: "+test.want)
			wantNoContent(t, err, test.roots)
		})
	}
}

func TestSettingNames(t *testing.T) {
	t.Parallel()
	o := Options{Setting: func(name string) string { return "the setting " + name }}
	_, err := newTransport(t, &settings.Upstream{TLS: true, CACert: "/does/not/exist"}, o)(t.Context(), false)
	wantError(t, err, "the setting CA_CERT /does/not/exist: no such file or directory")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v is no os.ErrNotExist", err)
	}
	if got, want := (Options{}).setting("RPC_HEADERS"), "RPC_HEADERS"; got != want {
		t.Errorf("setting %q, want %q", got, want)
	}
}

// wantNoContent checks that no run of 8 bytes of a content is in the error.
func wantNoContent(t testing.TB, err error, contents ...[]byte) {
	t.Helper()
	const run = 8
	for _, content := range contents {
		// What marks a PEM block is no secret, and messages name it.
		text := strings.ReplaceAll(strings.ReplaceAll(string(content), "CERTIFICATE", ""), "PRIVATE KEY", "")
		for i := 0; i+run <= len(text); i++ {
			if strings.Contains(err.Error(), text[i:i+run]) {
				t.Fatalf("the error holds %q of the content", text[i:i+run])
			}
		}
	}
}

// A mount that does not answer ends no read. Once it is replaced the credentials come.
func TestReadThatNeverEnds(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.ServerTLS(t))
	var reads atomic.Int32
	o, c, _ := newOptions()
	release := make(chan struct{})
	defer close(release)
	first := make(chan struct{})
	o.Read = func(context.Context, string) ([]byte, error) {
		if reads.Add(1) == 1 {
			close(first)
			<-release
		}
		return ca.PEM(), nil
	}
	transport := newTransport(t, &settings.Upstream{TLS: true, CACert: "a-path"}, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := transport(ctx, false); err == nil {
		t.Fatal("credentials came while the read was stuck")
	}
	<-first
	c.advance(stale)
	wantHandshake(t, transport, address, "localhost", "none")
}

// A handshake that fails for another reason than the certificate tells which certificate it was with.
func TestFailedHandshakeShowsTheCertificate(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	withoutALPN := ca.ServerTLS(t)
	withoutALPN.NextProtos = []string{}
	wantsMore := ca.MutualTLS(t)
	wantsMore.MaxVersion = tls.VersionTLS12
	for name, config := range map[string]*tls.Config{"no ALPN": withoutALPN, "no client certificate": wantsMore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transport := newTransport(t, &settings.Upstream{TLS: true, CACert: string(ca.PEM())}, Options{})
			tc, err := transport(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = handshake(t, tc, serveTLS(t, config), "localhost")
			shown, ok := errors.AsType[*dial.HandshakeError](err)
			if !ok || shown.Leaf == nil || len(shown.Leaf.DNSNames) == 0 {
				t.Errorf("error %v shows no certificate", err)
			}
		})
	}
}
