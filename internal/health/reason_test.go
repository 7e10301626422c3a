package health

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestSentences: each phase of a connection that failed and of a time-out has a sentence of its own, and each status has one.
func TestSentences(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	said := map[string]string{}
	for _, s := range Statuses() {
		for _, p := range append(Phases(), PhaseNone) {
			if p != PhaseNone && s != ConnectionFailed && s != Timeout {
				continue
			}
			what := fmt.Sprintf("%v in %q", s, p)
			sentence := Verdict{Status: s, Phase: p, Err: errors.New("dial 10.0.0.1: message")}.Sentence(now)
			if sentence == "" || !strings.HasSuffix(sentence, ".") || strings.Contains(sentence, "10.0.0.1") || said[sentence] != "" || sentence != Meaning(s, p) {
				t.Errorf("%s: %q, which %s says, too", what, sentence, said[sentence])
			}
			said[sentence] = what
		}
	}
	if got := Meaning(Status(99), PhaseNone); got != Meaning(Unknown, PhaseNone) {
		t.Errorf("no status: %q", got)
	}
}

func TestSentenceAndReason(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	at := now.Add(-52 * time.Hour)
	cause := errors.New("10.0.0.1: x509: …")
	for _, test := range []struct {
		v                Verdict
		sentence, reason string
	}{
		{Verdict{Status: ConnectionFailed, Phase: PhaseTLS, Err: fmt.Errorf("e: %w", &TLSError{Fault: CertificateExpired, At: at, Err: cause})},
			"TLS handshake failed. The server's certificate expired 2 days ago.", "the server's certificate expired 2026-11-24"},
		{Verdict{Status: ConnectionFailed, Phase: PhaseTLS, Err: &TLSError{Fault: CertificateNotYetValid, At: now.Add(3 * time.Hour), Err: cause}},
			"TLS handshake failed. The server's certificate is not valid yet: it will be in 3 hours.", "the server's certificate is not valid before 2026-11-26"},
		{Verdict{Status: ConnectionFailed, Phase: PhaseTLS, Err: &TLSError{Fault: WrongName, Err: cause}},
			"TLS handshake failed. The server's certificate is for another name.", "10.0.0.1: x509: …"},
		{Verdict{Status: ConnectionFailed, Phase: PhaseTLS, Err: &TLSError{Err: cause}}, "TLS handshake failed.", "10.0.0.1: x509: …"},
		{Verdict{Status: RPCFailed, Asked: true, Code: codes.Unauthenticated, Err: cause}, "The health check's RPC failed with the gRPC status UNAUTHENTICATED.", "10.0.0.1: x509: …"},
		{Verdict{Status: NotServing, Asked: true}, "The server answers, and says that it is not serving.", "the server answers, and says that it is not serving"},
		{Verdict{Status: Timeout, Phase: PhaseRPC, Err: errors.New("no answer to the RPC within 1s")},
			"The server accepted a connection, and did not answer the health check in time.", "no answer to the RPC within 1s"},
	} {
		if got := test.v.Sentence(now); got != test.sentence {
			t.Errorf("%+v: sentence %q, want %q", test.v, got, test.sentence)
		}
		if got := test.v.Reason(); got != test.reason {
			t.Errorf("%+v: reason %q, want %q", test.v, got, test.reason)
		}
	}
}
