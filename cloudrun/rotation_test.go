//go:build long

package main

import (
	"bytes"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/grpc-health-http/test/healthtest"
)

// rotation is what the contract gives what has changed until it is in use: 10 s at the listener, and 5 s
// and a dial towards the upstream.
const rotation = 10 * time.Second

// files are the contents of all files of a mount, by name.
type files map[string][]byte

// The ways in which files are replaced.
var mounts = map[string]func(t *testing.T, dir string) (put func(files)){
	// Scripts, and certbot's copies.
	"rewrite": func(t *testing.T, dir string) func(files) {
		return func(v files) {
			for name, content := range v {
				writeFile(t, filepath.Join(dir, name), content)
			}
		}
	},
	"rename": func(t *testing.T, dir string) func(files) {
		return func(v files) {
			for name, content := range v {
				path := filepath.Join(dir, name)
				writeFile(t, path+".new", content)
				if err := os.Rename(path+".new", path); err != nil {
					t.Error(err)
				}
			}
		}
	},
	// Kubernetes: the names lead through a link to a directory of one version.
	"symlink swap": func(t *testing.T, dir string) func(files) {
		data := filepath.Join(dir, "..data")
		return func(v files) {
			target, err := os.MkdirTemp(dir, "..version")
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range v {
				writeFile(t, filepath.Join(target, name), content)
				link := filepath.Join(dir, name)
				if _, err := os.Lstat(link); err == nil {
					continue
				}
				if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
					t.Error(err)
				}
			}
			if err := os.Symlink(filepath.Base(target), data+".new"); err != nil {
				t.Error(err)
			}
			if err := os.Rename(data+".new", data); err != nil {
				t.Error(err)
			}
		}
	},
}

// rotated are the settings that take files, and the file of each.
var rotated = map[string]string{
	"-https-listen-cert": "listener.crt", "-https-listen-key": "listener.key", "-https-listen-ca": "callers.crt",
	"-http-auth-token-file": "token", "-grpc-ca-cert": "upstream.crt", "-grpc-client-cert": "client.crt", "-grpc-client-key": "client.key",
	"-rpc-header": "value",
}

// kinds are the names in the log of what is read again.
var kinds = []string{
	"listener certificate", "listener client roots", "auth token", "upstream roots", "client certificate", "header value",
}

// Every file of every setting is replaced at once, in each of the ways, with a torn version in between, while callers
// ask without end over old and new connections: no request fails, the last good ones stay in use while
// the files are torn, and the new ones are in use in time. None of the keys, tokens and values is printed.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	for way, mount := range mounts {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put := mount(t, dir)

			serverCA, nextServerCA := healthtest.NewCA(t), healthtest.NewCA(t)
			clientCA, listenerCA := healthtest.NewCA(t), healthtest.NewCA(t)
			callerCA, nextCallerCA := healthtest.NewCA(t), healthtest.NewCA(t)
			client, nextClient := clientCA.Client(t), clientCA.Client(t)
			listener, nextListener := listenerCA.Server(t), listenerCA.Server(t)
			const token, nextToken = "first-t0ken-of-callers", "second-t0ken-of-callers"
			const value, nextValue = "first-s3cret-of-the-upstream", "second-s3cret-of-the-upstream"

			first := files{
				"listener.crt": listener.CertPEM, "listener.key": listener.KeyPEM, "callers.crt": callerCA.PEM(), "token": []byte(token),
				"upstream.crt": serverCA.PEM(), "client.crt": client.CertPEM, "client.key": client.KeyPEM, "value": []byte(value + "\n"),
			}
			torn := files{
				"listener.crt": nextListener.CertPEM, "listener.key": listener.KeyPEM, "callers.crt": callerCA.PEM()[:200],
				// A token file that stays empty lets nobody in: TestTokenRightEnds of internal/creds.
				"token":        []byte(token),
				"upstream.crt": serverCA.PEM()[:200], "client.crt": client.CertPEM, "client.key": nextClient.KeyPEM, "value": nil,
			}
			next := files{
				"listener.crt": nextListener.CertPEM, "listener.key": nextListener.KeyPEM,
				"callers.crt": slices.Concat(callerCA.PEM(), nextCallerCA.PEM()), "token": []byte(nextToken),
				"upstream.crt": slices.Concat(nextServerCA.PEM(), serverCA.PEM()),
				"client.crt":   nextClient.CertPEM, "client.key": nextClient.KeyPEM, "value": []byte(nextValue),
			}

			var seen atomic.Pointer[string] // the serial number of the certificate that the upstream saw last
			mutual := func(ca *healthtest.CA) *tls.Config {
				config := ca.ServerTLS(t)
				config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, clientCA.Pool()
				config.VerifyConnection = func(state tls.ConnectionState) error {
					serial := state.PeerCertificates[0].SerialNumber.String()
					seen.Store(&serial)
					return nil
				}
				return config
			}
			up := healthtest.Start(t, healthtest.TLS(mutual(serverCA)))

			put(first)
			args := []string{"-grpc-addr=" + up.Addr(), "-log-level=debug", "-conn-max-age=100ms", "-https-listen-verify", "-grpc-tls"}
			for flag, name := range rotated {
				path := filepath.Join(dir, name)
				if flag == "-rpc-header" {
					path = "x-key: @" + path
				}
				args = append(args, flag+"="+path)
			}
			p := start(t, nil, args...)
			p.secret(token, nextToken, value, nextValue)
			for _, v := range []files{first, next} {
				for _, content := range v {
					p.secretPEM(content)
				}
			}

			as := func(ca *healthtest.CA) *tls.Config {
				leaf := ca.Client(t)
				return &tls.Config{
					RootCAs: listenerCA.Pool(), ServerName: "localhost",
					// Whatever authorities the listener lists.
					GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf.TLS, nil },
				}
			}
			done := make(chan struct{})
			var callers sync.WaitGroup
			var answers atomic.Int64
			var newToken atomic.Bool // is wanted
			// ask shows the token that was good last, and the new one where that is good no more.
			ask := func(c *caller) bool {
				r, err := c.get("/", "Authorization: Bearer "+map[bool]string{false: token, true: nextToken}[newToken.Load()])
				if err == nil && r.code == http.StatusUnauthorized {
					if r, err = c.get("/", "Authorization: Bearer "+nextToken); err == nil && r.code == http.StatusOK {
						newToken.Store(true)
					}
				}
				if err != nil || r.code != http.StatusOK || r.took > budget+slack {
					t.Errorf("%+v, %v", r, err)
					return false
				}
				answers.Add(1)
				return true
			}
			config := as(callerCA)
			for i := range 4 {
				c, err := p.connect(p.health, config)
				if err != nil {
					t.Fatal(err)
				}
				callers.Go(func() {
					for ask(c) {
						select {
						case <-done:
							c.Close()
							return
						case <-time.After(10 * time.Millisecond):
						}
						if i%2 == 0 {
							continue // over the same connection
						}
						c.Close()
						if c, err = p.connect(p.health, config); err != nil {
							t.Errorf("a new connection: %v", err)
							return
						}
					}
				})
			}
			defer func() {
				close(done)
				callers.Wait()
				t.Logf("%d answers", answers.Load())
			}()

			put(torn)
			eventually(t, "all torn files are noticed", func() bool {
				for _, what := range kinds {
					if what != "auth token" && !strings.Contains(p.log(), `the last good one stays in use" what="`+what+`"`) {
						return false
					}
				}
				return true
			})
			if got := *seen.Load(); got != client.TLS.Leaf.SerialNumber.String() || up.Last().Metadata.Get("x-key")[0] != value {
				t.Errorf("the upstream sees certificate %s and %v while the files are torn", got, up.Last().Metadata)
			}

			put(next)
			up.SetTLS(mutual(nextServerCA)) // at once: a failed handshake reads the roots again
			began := time.Now()
			newcomer := as(nextCallerCA)
			within := func(what string, condition func() bool) {
				t.Helper()
				for !condition() {
					if time.Since(began) > rotation {
						t.Errorf("%s: not within %v", what, rotation)
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
			}
			within("the listener's certificate", func() bool {
				c, err := p.connect(p.health, config)
				if err != nil {
					t.Error(err)
					return true
				}
				defer c.Close()
				return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Equal(nextListener.TLS.Leaf)
			})
			within("a caller of the new authority", func() bool {
				c, err := p.connect(p.health, newcomer)
				if err != nil {
					return false
				}
				defer c.Close()
				r, err := c.get("/livez")
				return err == nil && r.code == http.StatusOK
			})
			within("the token", newToken.Load)
			within("the roots for the upstream, and the client certificate", func() bool {
				return *seen.Load() == nextClient.TLS.Leaf.SerialNumber.String()
			})
			within("the header", func() bool { return up.Last().Metadata.Get("x-key")[0] == nextValue })
			metrics := p.scrape()
			for _, result := range []string{"ok", "error"} {
				if !regexp.MustCompile(`(?m)^grpc_health_check_certificate_reloads_total{result="` + result + `"} ([4-9]|\d\d)`).MatchString(metrics) {
					t.Errorf("the metrics do not count four certificates that were read again with result %s", result)
				}
			}
		})
	}
}

// TestRotationKnowsAllFiles checks that what the help says to be files is what TestRotationUnderLoad rotates.
func TestRotationKnowsAllFiles(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(path, "-help").Output()
	if err != nil {
		t.Fatal(err)
	}
	// TestTargets changes the targets file.
	help = bytes.ReplaceAll(help, []byte("  -targets-file FILE\n"), nil)
	flags := regexp.MustCompile(`(?m)^  (-[a-z-]+) (?:PEM|FILE|HEADER)$`).FindAllSubmatch(help, -1)
	if len(flags) != len(rotated) {
		t.Errorf("%d flags in the help take files, and %d are rotated", len(flags), len(rotated))
	}
	for _, flag := range flags {
		if rotated[string(flag[1])] == "" {
			t.Errorf("%s is not rotated", flag[1])
		}
	}
}
