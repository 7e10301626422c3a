package creds

import (
	"os"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/test/healthtest"
)

// got is the credentials of one use.
func got(t *testing.T, transport Transport) credentials.TransportCredentials {
	t.Helper()
	tc, err := transport(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return tc
}

// Upstreams share their credentials if all settings that make them are the same, and no others have a part in it.
func TestWhoShares(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	client := ca.Client(t)
	r := newReader()
	for _, name := range []string{"ca", "other-ca"} {
		r.set(name, ca.PEM())
	}
	for _, name := range []string{"cert", "other-cert"} {
		r.set(name, client.CertPEM)
		r.set(name+"-key", client.KeyPEM)
	}
	one := settings.Upstream{TLS: true, CACert: "ca", ClientCert: "cert", ClientKey: "cert-key"}
	for _, test := range []struct {
		name   string
		change func(s *settings.Upstream)
		shares bool
	}{
		{"the same", func(*settings.Upstream) {}, true},
		{"another address", func(s *settings.Upstream) { s.Addr = "b.test:1" }, true},
		{"another server name", func(s *settings.Upstream) { s.ServerName = "b.test" }, true},
		{"other time-outs and services", func(s *settings.Upstream) { s.RPCTimeout, s.Services = time.Hour, []string{"s"} }, true},
		{"other roots, whatever they hold", func(s *settings.Upstream) { s.CACert = "other-ca" }, false},
		{"inline roots", func(s *settings.Upstream) { s.CACert = string(ca.PEM()) }, false},
		{"the system's roots", func(s *settings.Upstream) { s.CACert = "" }, false},
		{"another certificate", func(s *settings.Upstream) { s.ClientCert = "other-cert" }, false},
		{"another key", func(s *settings.Upstream) { s.ClientKey = "other-cert-key" }, false},
		{"no certificate", func(s *settings.Upstream) { s.ClientCert, s.ClientKey = "", "" }, false},
		{"not verified", func(s *settings.Upstream) { s.NoVerify = true }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			o, _, _ := newOptions()
			o.Read, o.Shared = r.read, new(Shared)
			other := one
			test.change(&other)
			a, b := newTransport(t, &one, o), newTransport(t, &other, o)
			credentials := got(t, a)
			reads := r.count()
			if shares := credentials == got(t, b); shares != test.shares {
				t.Errorf("the same credentials: %v, want %v", shares, test.shares)
			}
			if test.shares && r.count() != reads {
				t.Errorf("%d more reads", r.count()-reads)
			}
			o.Shared = nil
			if credentials == got(t, newTransport(t, &one, o)) {
				t.Error("shared without Shared")
			}
		})
	}
}

// A rotation of a shared file reaches all, and each learns the end of its certificate: also one that comes later. Reloads are
// told once.
func TestSharedRotation(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.MutualTLS(t))
	first, second := ca.Client(t), ca.Client(t, healthtest.ValidUntil(time.Now().Add(36*time.Hour)))
	files := newPairFiles(t, first)
	s := &settings.Upstream{TLS: true, CACert: ca.WriteFile(t, t.TempDir(), "ca"), ClientCert: files.cert, ClientKey: files.key}
	o, c, e := newOptions()
	o.Shared = new(Shared)
	type one struct {
		transport Transport
		told      *events
	}
	join := func() one {
		told := new(events)
		own := o
		own.Expiry = told.expiry
		return one{newTransport(t, s, own), told}
	}
	all := []one{join(), join(), join()}
	want := func(leaf *healthtest.Leaf, times int) {
		t.Helper()
		for i, u := range all {
			wantHandshake(t, u.transport, address, "localhost", serial(leaf))
			wantHandshake(t, u.transport, address, "localhost", serial(leaf))
			if n := len(u.told.expires); n != times || !u.told.lastExpiry().Equal(leaf.TLS.Leaf.NotAfter) {
				t.Errorf("%d: told %d ends, the last of them %v, want %d and %v", i, n, u.told.lastExpiry(), times, leaf.TLS.Leaf.NotAfter)
			}
		}
	}
	want(first, 1)
	files.write(t, second)
	c.advance(stale)
	want(second, 2)
	wantReload(t, e, ClientCertificate, "")
	wantNoReload(t, e)
	all = []one{join()}
	want(second, 1)
}

// Roots that are gone fail those alone whose settings name them. With the file back all of them recover.
func TestSharedFailure(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	address := serveTLS(t, ca.ServerTLS(t))
	there, gone := ca.WriteFile(t, t.TempDir(), "there"), ca.WriteFile(t, t.TempDir(), "gone")
	if err := os.Rename(gone, gone+".moved"); err != nil {
		t.Fatal(err)
	}
	o, _, _ := newOptions()
	o.Shared = new(Shared)
	var sound, failing []Transport
	for range 3 {
		sound = append(sound, newTransport(t, &settings.Upstream{TLS: true, CACert: there}, o))
		failing = append(failing, newTransport(t, &settings.Upstream{TLS: true, CACert: gone}, o))
	}
	for range 2 {
		for i := range sound {
			wantHandshake(t, sound[i], address, "localhost", "none")
			_, err := failing[i](t.Context(), false)
			wantError(t, err, "CA_CERT "+gone, "no such file")
		}
	}
	if err := os.Rename(gone+".moved", gone); err != nil {
		t.Fatal(err)
	}
	for _, transport := range failing {
		wantHandshake(t, transport, address, "localhost", "none")
	}
}

// What nobody uses any more is released; what somebody uses stays shared, whether there is a client certificate or none.
func TestSharedIsReleased(t *testing.T) {
	t.Parallel()
	ca := healthtest.NewCA(t)
	client := ca.Client(t)
	r := newReader()
	r.set("kept", ca.PEM())
	r.set("cert", client.CertPEM)
	r.set("key", client.KeyPEM)
	o, _, _ := newOptions()
	o.Read, o.Shared = r.read, new(Shared)
	for _, s := range []*settings.Upstream{
		{TLS: true, CACert: "kept"},
		{TLS: true, CACert: "kept", ClientCert: "cert", ClientKey: "key"},
	} {
		kept := newTransport(t, s, o)
		before := got(t, kept)
		for i := range 10 {
			name := "gone-" + string(rune('a'+i))
			r.set(name, ca.PEM())
			got(t, newTransport(t, &settings.Upstream{TLS: true, CACert: name}, o))
		}
		held := func() int {
			o.Shared.mu.Lock()
			defer o.Shared.mu.Unlock()
			return len(o.Shared.inUse)
		}
		for deadline := time.Now().Add(10 * time.Second); held() != 1; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%d are held, want the one that is used", held())
			}
			runtime.GC()
		}
		if got(t, newTransport(t, s, o)) != before {
			t.Error("what is used was released")
		}
		runtime.KeepAlive(kept)
	}
}
