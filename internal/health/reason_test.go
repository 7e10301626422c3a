package health

import (
	"errors"
	"fmt"
	"slices"
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

// A verdict about several addresses says of how many, and names none.
func TestSentenceOfAddresses(t *testing.T) {
	t.Parallel()
	const refused = "The server does not accept connections, or cannot be reached."
	for _, test := range []struct {
		serving, reachable, needed int
		status                     Status
		phase                      Phase
		want                       string
	}{
		{1, 1, 1, Serving, PhaseNone, "The server says that it is serving."},
		{0, 1, 1, ConnectionFailed, PhaseConnect, refused},
		{3, 3, 3, Serving, PhaseNone, "3 of 3 addresses are serving."},
		{2, 3, 2, Serving, PhaseNone, "2 of 3 addresses are serving; 2 must be."},
		{2, 3, 3, ConnectionFailed, PhaseConnect, "2 of 3 addresses are serving. " + refused},
		{1, 3, 2, ConnectionFailed, PhaseConnect, "1 of 3 addresses is serving; 2 must be. " + refused},
		{0, 2, 2, NotServing, PhaseNone, "0 of 2 addresses are serving. The server answers, and says that it is not serving."},
		{2, 2, 3, NotServing, PhaseNone, "2 of 2 addresses are serving, and 3 must be."},
		{1, 1, 2, NotServing, PhaseNone, "1 of 1 addresses is serving, and 2 must be."},
		{1, 2, 3, Timeout, PhaseConnect, "1 of 2 addresses is serving, and 3 must be. The server did not accept a connection in time."},
		{0, 0, 1, ConnectionFailed, PhaseConnect, "This machine has no route to any of the server's addresses."},
	} {
		v := Verdict{Status: test.status, Phase: test.phase, Addresses: &Addresses{Serving: test.serving, Reachable: test.reachable, Needed: test.needed}}
		if got := v.Sentence(time.Unix(0, 0)); got != test.want {
			t.Errorf("%+v: %q", test, got)
		}
	}
}

func TestLinesOfAddresses(t *testing.T) {
	t.Parallel()
	a := Addresses{LeftOut: 3, All: []AddressVerdict{
		{Address: "d", Status: ConnectionFailed, NoRoute: true, Err: ErrNoRoute}, {Address: "a", Status: Serving},
		{Address: "b", Status: NotServing}, {Address: "c", Status: Timeout, Err: errors.New("too late")}, {Address: "f", NoRoute: true, Err: ErrNoRoute}, {Address: "e", Status: NotServing},
	}}
	a.Sort()
	want := []string{"c TIMEOUT: too late", "b NOT_SERVING", "e NOT_SERVING", "a SERVING", "d not there: this machine has no route to it", "f not there: this machine has no route to it", "3 more were not checked"}
	if got := a.Lines(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := a.NotServing(); !slices.Equal(got, []string{"b", "c", "e"}) {
		t.Errorf("%q", got)
	}
}
