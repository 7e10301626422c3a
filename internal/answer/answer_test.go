package answer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"example.com/grpc-health-http/internal/health"
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	serving := health.Verdict{Service: "echo.EchoServer", Status: health.Serving, Asked: true, Duration: 800 * time.Microsecond}
	for _, row := range []struct {
		name       string
		verdicts   []health.Verdict
		text, json string
	}{
		{"one", []health.Verdict{serving}, "echo.EchoServer SERVING\n",
			`{"status":"SERVING","services":[{"service":"echo.EchoServer","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0.0008}]}`},
		{"the whole server", []health.Verdict{{Status: health.Timeout, Phase: health.PhaseConnect}}, "TIMEOUT\n",
			`{"status":"TIMEOUT","services":[{"service":"","status":"TIMEOUT","grpc_code":"","phase":"connect","duration_seconds":0}]}`},
		{"the worst of two", []health.Verdict{serving, {Service: "b", Status: health.ServiceUnknown, Asked: true, Code: codes.NotFound}},
			"echo.EchoServer SERVING\nb SERVICE_UNKNOWN\n",
			`{"status":"SERVICE_UNKNOWN","services":[{"service":"echo.EchoServer","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0.0008},` +
				`{"service":"b","status":"SERVICE_UNKNOWN","grpc_code":"NOT_FOUND","phase":"","duration_seconds":0}]}`},
		{"none", nil, "UNKNOWN\n", `{"status":"UNKNOWN","services":[]}`},
		{"of a long List", []health.Verdict{serving, {Service: "b", Status: health.Serving, LeftOut: 69_900}},
			"echo.EchoServer SERVING\nb SERVING\n(69900 more, none of them worse)\n",
			`{"status":"SERVING","services":[{"service":"echo.EchoServer","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0.0008},` +
				`{"service":"b","status":"SERVING","grpc_code":"","phase":"","duration_seconds":0}],"services_left_out":69900}`},
		{"a name with a line break", []health.Verdict{{Service: "a SERVING\nb", Status: health.NotServing}}, "a SERVING\\nb NOT_SERVING\n",
			`{"status":"NOT_SERVING","services":[{"service":"a SERVING\\nb","status":"NOT_SERVING","grpc_code":"","phase":"","duration_seconds":0}]}`},
	} {
		if got := string(Text(row.verdicts)); got != row.text {
			t.Errorf("%s: text %q, want %q", row.name, got, row.text)
		}
		if got := string(JSON(row.verdicts, false, false)); got != row.json+"\n" {
			t.Errorf("%s: JSON\n%s\nwant\n%s", row.name, got, row.json)
		}
	}
}

// Answers have evidence where there is some, and a cause only for those who may see it.
func TestJSONTellsWhy(t *testing.T) {
	t.Parallel()
	verdicts := []health.Verdict{
		{Service: "a", Status: health.ConnectionFailed, Phase: health.PhaseDNS, EvidenceID: "ID", Err: errors.New("lookup 10.0.0.1")},
		{Service: "b", Status: health.Serving},
		{Service: "c", Status: health.NotServing, EvidenceID: "other"},
	}
	const a, rest = `{"status":"CONNECTION_FAILED","services":[{"service":"a","status":"CONNECTION_FAILED","grpc_code":"","phase":"dns","duration_seconds":0,"evidence":"ID"`,
		`},{"service":"b","status":"SERVING","grpc_code":"","phase":"","duration_seconds":0},` +
			`{"service":"c","status":"NOT_SERVING","grpc_code":"","phase":"","duration_seconds":0,"evidence":"other"}]}` + "\n"
	if got := string(JSON(verdicts, false, false)); got != a+rest {
		t.Errorf("without causes:\n%s", got)
	}
	if got := string(JSON(verdicts, false, true)); got != a+`,"cause":"lookup 10.0.0.1"`+rest {
		t.Errorf("with causes:\n%s", got)
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	serving := health.Verdict{Status: health.Serving}
	unhealthy := health.Verdict{Status: health.NotServing}
	connecting := health.Verdict{Status: health.Timeout, Phase: health.PhaseConnect}
	calling := health.Verdict{Status: health.Timeout, Phase: health.PhaseRPC}
	code := func(v health.Verdict) int {
		switch {
		case v == serving:
			return 0
		case v == unhealthy:
			return 5
		case v == calling:
			return 2
		}
		return 1
	}
	for _, test := range []struct {
		verdicts []health.Verdict
		want     int
	}{
		{[]health.Verdict{serving}, 0},
		{[]health.Verdict{serving, unhealthy, serving}, 5},
		{[]health.Verdict{unhealthy, calling}, 2}, // a lower code, but the worse status
		{[]health.Verdict{calling, connecting, unhealthy}, 1},
		{[]health.Verdict{connecting, calling}, 1},
	} {
		if got := ExitCode(test.verdicts, code); got != test.want {
			t.Errorf("%v: %d, want %d", test.verdicts, got, test.want)
		}
	}
}

// Those who may see causes see each address, the worst first, and no more of them than an answer may hold.
func TestJSONTellsAddresses(t *testing.T) {
	t.Parallel()
	v := health.Verdict{Service: "a", Status: health.Serving, Addresses: &health.Addresses{Needed: 1, LeftOut: 2, All: []health.AddressVerdict{
		{Address: "192.0.2.1:1", Status: health.Timeout, Phase: health.PhaseConnect, Duration: time.Second, Err: errors.New("late\n")},
		{Address: "192.0.2.2:1", Status: health.Serving, Asked: true},
		{Address: "[2001:db8::1]:1", Status: health.ConnectionFailed, Phase: health.PhaseConnect, NoRoute: true, Err: health.ErrNoRoute},
	}}}
	const begin, end = `{"status":"SERVING","services":[{"service":"a","status":"SERVING","grpc_code":"","phase":"","duration_seconds":0`, "}]}\n"
	if got := string(JSON([]health.Verdict{v}, false, false)); got != begin+end {
		t.Errorf("without causes:\n%s", got)
	}
	const addresses = `,"addresses":[{"address":"192.0.2.1:1","status":"TIMEOUT","grpc_code":"","phase":"connect","duration_seconds":1,"cause":"late\\n"},` +
		`{"address":"192.0.2.2:1","status":"SERVING","grpc_code":"OK","phase":"","duration_seconds":0},` +
		`{"address":"[2001:db8::1]:1","status":"CONNECTION_FAILED","grpc_code":"","phase":"connect","duration_seconds":0,"no_route":true,"cause":"this machine has no route to it"}],` +
		`"addresses_needed":1,"addresses_not_checked":2`
	if got := string(JSON([]health.Verdict{v}, false, true)); got != begin+addresses+end {
		t.Errorf("with causes:\n%s", got)
	}
	many := health.Verdict{Addresses: &health.Addresses{All: make([]health.AddressVerdict, 256)}}
	for n, want := range map[int]string{1: "", 16: "", 17: `"addresses_not_shown":16}`, 100: `"addresses_not_shown":216}`, 1000: `"addresses_not_shown":252}`} {
		verdicts := make([]health.Verdict, n)
		for i := range verdicts {
			verdicts[i] = many
		}
		got := string(JSON(verdicts, false, true))
		if want == "" && strings.Contains(got, "not_shown") || !strings.Contains(got, want) || strings.Count(got, `"address":`) > max(MaxAddresses, 4*n) {
			t.Errorf("%d services: %d addresses", n, strings.Count(got, `"address":`))
		}
	}
}
