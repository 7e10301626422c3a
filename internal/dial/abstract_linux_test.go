package dial_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// Each form of an abstract socket's target leads to the socket that it leads to with grpc-go; its :authority is localhost. A name may
// be as long as the system takes.
func TestAbstractSockets(t *testing.T) {
	t.Parallel()
	name := fmt.Sprintf("grpc-health-%d", os.Getpid())
	long := name + strings.Repeat("x", 107-len(name))
	for socket, texts := range map[string][]string{
		"@" + name:          {"unix-abstract:" + name, "unix:@" + name},
		"@/" + name:         {"unix-abstract:///" + name, "unix-abstract:/" + name},
		"@" + name + ":a/b": {"unix-abstract:" + name + ":a/b"},
		"@" + long:          {"unix-abstract:" + long},
	} {
		up := healthtest.Start(t, healthtest.Listen("unix", socket))
		for n, text := range texts {
			d, _ := dialReal(t, text)
			want(t, d, health.PhaseNone, "")
			if got := up.Last().Authority; got != "localhost" || up.Connections() != n+1 {
				t.Errorf("%s: :authority %q, %d connections", text, got, up.Connections())
			}
			if got := d.Addresses[0].Address; got != "unix-abstract:"+strings.TrimPrefix(socket, "@") {
				t.Errorf("%s: shown as %s", text, got)
			}
		}
	}
	d, _ := dialReal(t, "unix-abstract:"+name+"-nobody")
	want(t, d, health.PhaseConnect, "refused")
}
