package health

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTLSErrorInWords(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		err             TLSError
		sentence, brief string
	}{
		{
			TLSError{Fault: CertificateExpired, At: now.Add(-50 * time.Hour)},
			"The server's certificate expired 2 days ago.", "the server's certificate expired 2026-11-24",
		},
		{
			TLSError{Fault: CertificateExpired, At: now.Add(-47 * time.Hour)},
			"The server's certificate expired 47 hours ago.", "the server's certificate expired 2026-11-24",
		},
		{
			TLSError{Fault: CertificateExpired, At: now.Add(-time.Second)},
			"The server's certificate expired 1 minute ago.", "the server's certificate expired 2026-11-26",
		},
		{
			TLSError{Fault: CertificateNotYetValid, At: now.Add(90 * time.Minute)},
			"The server's certificate is not valid yet: it will be in 90 minutes.", "the server's certificate is not valid before 2026-11-26",
		},
		{
			TLSError{Fault: CertificateExpired, At: now.AddDate(-1, 0, 0), Issuer: true},
			"The certificate of an authority that the server's certificate depends on expired 365 days ago.",
			"the certificate of an authority that the server's certificate depends on expired 2025-11-26",
		},
		{
			TLSError{Fault: ClientCertificateRequired},
			"The server requires a client certificate.", "the server requires a client certificate",
		},
		{TLSError{}, "", ""},
	} {
		if got := test.err.Sentence(now); got != test.sentence {
			t.Errorf("%+v: sentence %q, want %q", test.err, got, test.sentence)
		}
		if got := test.err.Brief(); got != test.brief {
			t.Errorf("%+v: brief %q, want %q", test.err, got, test.brief)
		}
	}
}

// A fault without words would be a blank on the page, and words from outside would be a hole in it.
func TestEveryTLSFaultHasWords(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for fault := CertificateExpired; fault <= NoALPN; fault++ {
		v := Verdict{Err: fmt.Errorf("TLS handshake with 192.0.2.1:443: %w", &TLSError{Fault: fault, Err: errors.New("from <outside>")})}
		told := v.TLSError()
		if told == nil {
			t.Fatalf("fault %d: the verdict does not have it", fault)
		}
		sentence, brief := told.Sentence(time.Now()), told.Brief()
		if sentence == "" || brief == "" || seen[brief] {
			t.Errorf("fault %d: sentence %q, brief %q", fault, sentence, brief)
		}
		seen[brief] = true
		if strings.ContainsAny(sentence+brief, "<>0123456789") && told.Fault > CertificateNotYetValid && told.Fault != NoALPN || strings.Contains(sentence+brief, "outside") {
			t.Errorf("fault %d: %q, %q hold text from outside", fault, sentence, brief)
		}
	}
	if (Verdict{Err: errors.New("another")}).TLSError() != nil || (Verdict{}).TLSError() != nil {
		t.Error("a verdict with another cause has a TLSError")
	}
}
