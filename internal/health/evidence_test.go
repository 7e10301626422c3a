package health

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
)

// A certificate can name as much as it likes.
func TestACertificatesNamesAreBounded(t *testing.T) {
	t.Parallel()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("\u202e\n", 10000)}}
	for range 10000 {
		c.DNSNames = append(c.DNSNames, "a\x1b[2J\u2028.example")
	}
	got := AddressAttempt{Address: "192.0.2.1:443", Certificate: c}.String()
	if len(got) > 3<<10 || !strings.Contains(got, `certificate "\u202e\n`) || !strings.Contains(got, `names ["a\x1b[2J\u2028.example"`) || !strings.Contains(got, " from ") {
		t.Errorf("%d bytes: %.200s", len(got), got)
	}
}
