package scripttest

import (
	"flag"
	"net"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/grpc-health-http/test/healthtest"
	"example.com/grpc-health-http/test/spiffetest"
)

func authority(s *session, ts *testscript.TestScript, args []string) {
	ca := healthtest.NewCA(s.t)
	s.authorities[args[0]] = ca
	ca.WriteFile(s.t, ts.MkAbs("."), args[0])
	s.hidePEM(ca.PEM())
}

func certificate(s *session, ts *testscript.TestScript, args []string) {
	flags := flag.NewFlagSet("certificate", flag.ContinueOnError)
	client, expired := flags.Bool("client", false, ""), flags.Bool("expired", false, "")
	hosts, id := flags.String("name", "", ""), flags.String("spiffe", "", "")
	args = parse(ts, flags, args, 2)
	ca := s.authority(ts, args[0])
	var options []healthtest.LeafOption
	if *expired {
		options = append(options, healthtest.Expired())
	}
	if *hosts != "" {
		for host := range strings.SplitSeq(*hosts, ",") {
			if net.ParseIP(host) != nil {
				options = append(options, healthtest.IPs(host))
			} else {
				options = append(options, healthtest.DNSNames(host))
			}
		}
	}
	if *id != "" {
		options = append(options, spiffetest.ID(s.t, *id))
	}
	sign := ca.Server
	if *client {
		sign = ca.Client
	}
	leaf := sign(s.t, options...)
	leaf.WriteFiles(s.t, ts.MkAbs("."), args[1])
	s.hidePEM(leaf.CertPEM)
	s.hidePEM(leaf.KeyPEM)
}

func (s *session) authority(ts *testscript.TestScript, name string) *healthtest.CA {
	ca := s.authorities[name]
	if ca == nil {
		ts.Fatalf("no authority %s", name)
	}
	return ca
}

func startWorkloadAPI(s *session, ts *testscript.TestScript, args []string) {
	api := spiffetest.Start(s.t)
	s.workloadAPIs[args[0]] = api
	ts.Setenv(args[0], api.Address)
}

func issue(s *session, ts *testscript.TestScript, args []string) {
	api := s.workloadAPIs[args[0]]
	if api == nil {
		ts.Fatalf("no Workload API %s", args[0])
	}
	ca := s.authority(ts, args[1])
	leaf := ca.Client(s.t, spiffetest.ID(s.t, args[2]))
	api.Issue(s.t, args[2], ca, leaf)
	s.hidePEM(leaf.CertPEM)
	s.hidePEM(leaf.KeyPEM)
}

// pemLine is the minimum length of a PEM line that counts as secret. The last line of a block may be so short that other output
// contains it by chance.
const pemLine = 16

// hidePEM marks each line of the content as secret.
func (s *session) hidePEM(content []byte) {
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if len(line) >= pemLine && !strings.HasPrefix(line, "-----") {
			s.hide(line)
		}
	}
}
