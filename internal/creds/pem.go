package creds

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"example.com/grpc-health-http/internal/pemfile"
	"example.com/grpc-health-http/internal/settings"
)

// file is where a setting's content comes from: what its value names, or the value itself where
// that is PEM text.
type file struct {
	setting string // how messages name the setting
	reading *reading
	value   string
	read    func(ctx context.Context, name string) ([]byte, error)
}

func (o Options) file(variable, value string) file {
	return file{setting: o.setting(variable), value: value, read: o.read, reading: new(reading)}
}

func (f file) inline() bool { return pemfile.Begins(f.value) }

// String names the setting and where its content lies, never the content: a secret may stand where a path belongs.
func (f file) String() string {
	switch {
	case f.inline():
		return f.setting + " inline PEM"
	case settings.PathForm(f.value), settings.NamesSecret(f.value):
		return f.setting + " " + f.value
	}
	return f.setting + " (not shown, as it does not look like a path)"
}

func (f file) content(ctx context.Context) ([]byte, error) {
	if f.inline() {
		return []byte(f.value), nil
	}
	defer f.reading.begin()()
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
	usage := pemfile.ServerAuth
	if what == ListenerRoots {
		usage = pemfile.ClientAuth
	}
	s := fromFile(o, what, f, func(content []byte) (*rootSet, error) { return parseRoots(f, content, usage) })
	warn := o.warner(what)
	s.changed = func(set *rootSet) { warn(set.unused) }
	return s, s.loadInline(f)
}

// pair has a certificate with its key, from two files that may lie in different directories.
func (o Options) pair(what Kind, certVariable, certValue, keyVariable, keyValue string) (*source[*tls.Certificate], error) {
	cert, key := o.file(certVariable, certValue), o.file(keyVariable, keyValue)
	warn := o.warner(what)
	s := newSource(o, what, cert.String()+" with "+key.String(), func(ctx context.Context, known digest) (*tls.Certificate, digest, error) {
		loaded, unused, found, err := loadPair(ctx, cert, key, known)
		if err != nil {
			// Both files may have been in the middle of a rotation, which ends soon.
			loaded, unused, found, err = loadPair(ctx, cert, key, known)
		}
		if loaded != nil {
			warn(unused)
		}
		return loaded, found, err
	})
	s.files = []file{cert, key}
	s.changed = func(c *tls.Certificate) { o.expires(what, c.Leaf.NotAfter) }
	return s, s.loadInline(cert, key)
}

func loadPair(ctx context.Context, cert, key file, known digest) (pair *tls.Certificate, unused string, found digest, err error) {
	var keyPEM []byte
	var keyErr error
	var reading sync.WaitGroup
	// Side by side: the closer the reads, the smaller the chance to see two versions.
	reading.Go(func() { keyPEM, keyErr = key.content(ctx) })
	certPEM, certErr := cert.content(ctx)
	reading.Wait()
	if err := errors.Join(certErr, keyErr); err != nil {
		return nil, "", digest{}, err
	}
	certSum, keySum := sha256.Sum256(certPEM), sha256.Sum256(keyPEM)
	found = digest(sha256.Sum256(append(certSum[:], keySum[:]...)))
	if found == known {
		return nil, "", found, nil
	}
	pair, unused, err = parsePair(cert, key, certPEM, keyPEM)
	return pair, unused, found, err
}

// rootSet is the certificates of one file.
type rootSet struct {
	pool         *x509.CertPool
	certificates []*x509.Certificate
	// unused says which blocks of the file give no root, and why; empty where all do.
	unused string
}

// certPool is nil where there is no set.
func (s *rootSet) certPool() *x509.CertPool {
	if s == nil {
		return nil
	}
	return s.pool
}

// parseRoots makes a set of the certificates in content. usage is what they are trusted for. A block that is damaged means that the file
// was being written, or is lost: nothing of it is used. A block that is whole and gives no root is reported; without any
// root that is an error.
func parseRoots(f file, content []byte, usage asn1.ObjectIdentifier) (*rootSet, error) {
	blocks, err := f.blocks(content)
	if err != nil {
		return nil, err
	}
	set := &rootSet{pool: x509.NewCertPool()}
	var unused []string
	for _, b := range blocks {
		der, allows, is := certificateIn(b)
		if !is {
			unused = append(unused, b.String()+": "+kind(b))
			continue
		}
		c, err := x509.ParseCertificate(der)
		switch {
		case err != nil && !pemfile.Certificate(der):
			return nil, f.damaged(b, "its content is no whole certificate")
		case err != nil:
			unused = append(unused, b.String()+": "+refusal(der, err))
		case pemfile.Refusal(der) != "": // crypto/x509 parses it, and verifies nothing with its key
			unused = append(unused, b.String()+": "+pemfile.Refusal(der))
		case !allows(usage):
			unused = append(unused, b.String()+": its trust data do not allow this use")
		default:
			set.pool.AddCert(c)
			set.certificates = append(set.certificates, c)
		}
	}
	switch {
	case len(set.certificates) > 0 && len(unused) > 0:
		set.unused = f.String() + ": not used: " + some(unused)
	case len(set.certificates) == 0 && slices.ContainsFunc(blocks, isCertificate):
		return nil, f.wrong("holds no valid certificate: " + some(unused))
	case len(set.certificates) == 0:
		return nil, f.wrong("holds no PEM certificate" + because(content, unused))
	}
	return set, nil
}

// because says what a content is that does not hold what it should: what its blocks are, or what else it is.
func because(content []byte, blocks []string) string {
	if len(blocks) > 0 {
		return ": " + some(blocks)
	}
	if foreign := pemfile.Foreign(content); foreign != "" {
		return ": " + foreign
	}
	return ""
}

// blocks are those of the content, all whole.
func (f file) blocks(content []byte) ([]pemfile.Block, error) {
	blocks := pemfile.Blocks(content)
	for _, b := range blocks {
		if b.Fault != "" {
			return nil, f.damaged(b, b.Fault)
		}
	}
	return blocks, nil
}

func (f file) damaged(b pemfile.Block, how string) error {
	return f.wrong("holds an incomplete or damaged PEM block: " + b.String() + ": " + how)
}

func isCertificate(b pemfile.Block) bool {
	return b.Type == "CERTIFICATE" || b.Type == "X509 CERTIFICATE" || b.Type == "TRUSTED CERTIFICATE"
}

// certificateIn is the certificate of a block; is says whether it has one. allows says for what it is trusted.
func certificateIn(b pemfile.Block) (der []byte, allows func(asn1.ObjectIdentifier) bool, is bool) {
	if b.Type == "TRUSTED CERTIFICATE" {
		if der, allows, ok := pemfile.Trusted(b.Bytes); ok {
			return der, allows, true
		}
	}
	return b.Bytes, func(asn1.ObjectIdentifier) bool { return true }, isCertificate(b)
}

// refusal says why Go does not accept a certificate that is whole. err is what crypto/x509 says; it may quote the certificate.
func refusal(der []byte, err error) string {
	if why := pemfile.Refusal(der); why != "" {
		return why
	}
	const longest = 100
	if text := err.Error(); len(text) <= longest && !strings.ContainsAny(text, "\"'`") {
		return "Go does not accept it: " + text
	}
	return "Go does not accept it"
}

// kind says what a block is that is not what is looked for.
func kind(b pemfile.Block) string {
	switch b.Type {
	case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		return "a certificate"
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return "a certificate signing request"
	case "X509 CRL":
		return "a certificate revocation list"
	case "PKCS7", "CMS":
		return "a PKCS #7 bundle: write out its certificates, with openssl pkcs7 -print_certs for example"
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return "a public key"
	}
	switch {
	case isKey(b):
		return "a private key"
	case isParameters(b):
		return "parameters of keys, and no key"
	}
	return "neither a certificate nor a key"
}

func isKey(b pemfile.Block) bool {
	return b.Type == "PRIVATE KEY" || strings.HasSuffix(b.Type, " PRIVATE KEY")
}

// isParameters knows "EC PARAMETERS" and its like, which OpenSSL writes before a key.
func isParameters(b pemfile.Block) bool { return strings.HasSuffix(b.Type, " PARAMETERS") }

// kinds says what blocks are.
func kinds(blocks []pemfile.Block) []string {
	said := make([]string, len(blocks))
	for i, b := range blocks {
		said[i] = b.String() + ": " + kind(b)
	}
	return said
}

// parsePair makes a certificate of the two contents; only a key that belongs to the first
// certificate does. unused says which blocks of the certificate's file are not used, and is empty where all are.
func parsePair(cert, key file, certPEM, keyPEM []byte) (pair *tls.Certificate, unused string, err error) {
	certBlocks, err := cert.blocks(certPEM)
	if err != nil {
		return nil, "", err
	}
	keyBlocks, err := key.blocks(keyPEM)
	if err != nil {
		return nil, "", err
	}
	if !slices.ContainsFunc(certBlocks, isCertificate) {
		if slices.ContainsFunc(certBlocks, isKey) && slices.ContainsFunc(keyBlocks, isCertificate) && !slices.ContainsFunc(keyBlocks, isKey) {
			return nil, "", fmt.Errorf("%s holds a private key, and %s a certificate: exchange the two", cert, key)
		}
		return nil, "", cert.wrong("holds no PEM certificate" + because(certPEM, kinds(certBlocks)))
	}
	if !slices.ContainsFunc(keyBlocks, isKey) {
		return nil, "", key.wrong("holds no PEM private key" + because(keyPEM, kinds(keyBlocks)))
	}
	chain, others, err := cert.chain(certBlocks)
	if err != nil {
		return nil, "", err
	}
	keys, err := key.keys(keyBlocks)
	if err != nil {
		return nil, "", err
	}
	signer, err := match(cert, key, chain, keys)
	if err != nil {
		return nil, "", err
	}
	if len(others) > 0 {
		unused = cert.String() + ": not used: " + some(others)
	}
	pair = &tls.Certificate{PrivateKey: signer, Leaf: chain[0].certificate}
	for _, link := range chain {
		pair.Certificate = append(pair.Certificate, link.der)
	}
	return pair, unused, nil
}

// link is a certificate of a chain.
type link struct {
	der         []byte
	certificate *x509.Certificate // nil where Go does not accept it; only the first one needs it
	unusable    string            // why it cannot be the first one; empty where it can
}

// chain is the certificates of the blocks. others are the blocks that are neither certificates nor what lies beside these for good
// reason.
func (f file) chain(blocks []pemfile.Block) (chain []link, others []string, err error) {
	for _, b := range blocks {
		der, _, is := certificateIn(b)
		if !is {
			if !isKey(b) && !isParameters(b) {
				others = append(others, b.String()+": "+kind(b))
			}
			continue
		}
		c, err := x509.ParseCertificate(der)
		l := link{der: der, certificate: c}
		switch {
		case err != nil && !pemfile.Certificate(der):
			return nil, nil, f.damaged(b, "its content is no whole certificate")
		case err != nil:
			l.unusable = b.String() + ": " + refusal(der, err)
		default:
			if why := pemfile.Refusal(der); why != "" {
				l.unusable = b.String() + ": " + why
			}
		}
		chain = append(chain, l)
	}
	return chain, others, nil
}

// keys are the private keys of the blocks that can be used; an error says why none can.
func (f file) keys(blocks []pemfile.Block) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	var unusable []string
	for _, b := range blocks {
		if !isKey(b) {
			continue
		}
		switch key, err := parseKey(b.Bytes); {
		case b.Type == "ENCRYPTED PRIVATE KEY", b.Encrypted:
			unusable = append(unusable, "the private key is encrypted; decrypt it first, with openssl pkey for example")
		case b.Type == "OPENSSH PRIVATE KEY":
			unusable = append(unusable, b.String()+": it is in OpenSSH's own format, which TLS does not use: write a key in PKCS #8 (PRIVATE KEY)")
		case err == nil:
			keys = append(keys, key)
		default:
			why := pemfile.KeyRefusal(b.Bytes)
			if why == "" {
				return nil, f.damaged(b, "its content is no whole private key")
			}
			unusable = append(unusable, b.String()+": "+why)
		}
	}
	if len(keys) == 0 {
		return nil, f.wrong(some(unusable))
	}
	return keys, nil
}

var errNoSigner = errors.New("a key that cannot sign")

// parseKey takes the forms of a key that crypto/tls takes, whatever the block's label.
func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	if signer, ok := key.(crypto.Signer); ok {
		return signer, nil
	}
	return nil, errNoSigner
}

// match finds the key of the chain's first certificate.
func match(cert, key file, chain []link, keys []crypto.Signer) (crypto.Signer, error) {
	for _, k := range keys {
		public, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok {
			continue
		}
		for i, l := range chain {
			switch {
			case l.certificate == nil || !public.Equal(l.certificate.PublicKey):
			case i > 0:
				return nil, cert.wrong(fmt.Sprintf("its certificate %d is that of the private key, and must be its first: write the chain from there upwards", i+1))
			case l.unusable == "":
				return k, nil
			}
		}
	}
	if why := chain[0].unusable; why != "" {
		return nil, cert.wrong(why)
	}
	return nil, fmt.Errorf("%s: does not hold the private key of %s", key, cert)
}
