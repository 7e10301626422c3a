//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// secretAttacks make the proxy print secrets: those that it sends, and an upstream or an HTTP proxy quotes, those in its settings,
// and those of callers.
func secretAttacks() []attack {
	all := []attack{{
		name: "upstream quotes metadata", what: "the upstream's messages quote the metadata in every form in which it can be read back",
		settings: func(t *trial) []string {
			t.up.HandleUnknown(quoting)
			first, second, third, pass := t.secret(), t.secret(), t.secret(), t.secret()
			quoted, binary := `with"quotes\and `+t.secret(), "\xff\xfe"+t.secret()+"\x01"
			pair, inFile := "somebody:"+pass, "\x00\xff"+t.secret()
			t.file = filepath.Join(t.TempDir(), "header")
			t.replace([]byte(inFile))
			t.secrets = append(t.secrets, encoded(pair), encoded(binary), encoded(inFile), encoded(first+second), encoded("Basic "+encoded(pair)))
			headers := []string{
				"authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(pair)),
				"x-a: " + second, "x-b: " + first + second, "x-c: " + second + third, "x-d: " + first + second + third, // each holds the one before
				"x-quoted: " + quoted, "x-key-bin: " + binary, "x-same-bin: " + second, "x-file-bin: @" + t.file,
			}
			return debug("GRPC_HEALTH_RPC_HEADERS="+strings.Join(headers, "\n"), "GRPC_HEALTH_SHOW_CAUSE=true")
		},
		do: func(t *trial) {
			for i := range formats {
				t.searched("/?format="+formats[i]+"&"+names(forms, "")[2:], "")
			}
		},
	}, {
		name: "HTTP proxy quotes password", what: "the HTTP proxy quotes its password in its answer, in several forms", wants: "CONNECTION_FAILED",
		settings: func(t *trial) []string {
			pair := "somebody:" + t.secret()
			t.secrets = append(t.secrets, encoded(pair))
			answers := []string{"407 Authentication Required: %s", "%s is not allowed", "502 %s"}
			var served int
			address := t.listen(func(c net.Conn) {
				request, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				t.mu.Lock()
				served++
				kind := served
				t.mu.Unlock()
				quotes := []string{request.Header.Get("Proxy-Authorization"), pair, strconv.Quote(pair), base64.RawURLEncoding.EncodeToString([]byte(pair))}
				fmt.Fprintf(c, "HTTP/1.1 "+answers[kind%len(answers)]+"\r\n\r\n", quotes[kind%len(quotes)])
			})
			return debug("GRPC_HEALTH_ADDR=passthrough:///upstream.attack.test:443", "GRPC_HEALTH_USE_PROXY=true", "HTTPS_PROXY=http://"+pair+"@"+address, "GRPC_HEALTH_SHOW_CAUSE=true", "GRPC_HEALTH_CONN_MAX_AGE=0s")
		},
		do: func(t *trial) {
			for i := range 12 {
				t.searched("/?format="+formats[i%len(formats)], "")
			}
		},
	}, {
		name: "secrets of callers", what: "callers send the right token and wrong ones where they belong, and everywhere else",
		settings: func(t *trial) []string {
			settings := tokenFile(t)
			t.secrets = append(t.secrets, t.token, encoded("user:"+t.token))
			return debug(settings...)
		},
		do: func(t *trial) {
			wrong := t.secret()
			for _, secret := range []string{t.token, wrong} {
				for _, target := range []string{"/", "/" + secret, "/?format=" + secret, "/?service=a&" + secret + "=" + secret, "/?%" + secret, "http://user:" + secret + "@attack.test/"} {
					for _, field := range []string{
						"Authorization: Bearer " + secret, "Authorization: " + secret, "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+secret)),
						"Authorization: Basic " + secret, "Cookie: a=" + secret, "X-Api-Key: " + secret + "\r\nTraceparent: " + secret + "\r\nAccept: " + secret,
					} {
						t.searched(target, field)
					}
				}
			}
		},
	}}
	for name, address := range map[string]string{
		"path": "passthrough:///somebody:%s@127.0.0.1:9", "host": "somebody:%s@127.0.0.1:9", "URL": "https://somebody:%s@127.0.0.1:9/", "DNS": "dns:///somebody:%s@attack.test:9", "no port": "somebody:%s@attack.test:port",
	} {
		all = append(all, attack{
			name: "password in ADDR, " + name, what: "the upstream's address has a user and a password, where none belongs", wants: anyVerdict, mayRefuse: true,
			settings: func(t *trial) []string {
				return debug("GRPC_HEALTH_ADDR="+fmt.Sprintf(address, t.secret()), "GRPC_HEALTH_SHOW_CAUSE=true")
			},
			do: askAndSearch,
		})
	}
	for name, value := range map[string]string{
		"refused": "http://somebody:%s@127.0.0.1:9", "escape": "http://somebody:%%zz%s@127.0.0.1:9", "port": "http://somebody:%s@127.0.0.1:port", "space": "http://somebody:%s and@127.0.0.1:9",
		"no scheme": "somebody:%s@127.0.0.1:9", "scheme": "ftp://somebody:%s@127.0.0.1:9", "control character": "http://somebody:%s\x7f@127.0.0.1:9", "brackets": "http://somebody:%s@[::1:9", "slash": "http://somebody:a/%s@127.0.0.1:9",
	} {
		all = append(all, attack{
			name: "HTTPS_PROXY, " + name, what: "HTTPS_PROXY has a password, and is wrong or leads nowhere", wants: anyVerdict, mayRefuse: true,
			settings: func(t *trial) []string {
				return debug("GRPC_HEALTH_ADDR=passthrough:///upstream.attack.test:443", "GRPC_HEALTH_USE_PROXY=true", "HTTPS_PROXY="+fmt.Sprintf(value, t.secret()), "GRPC_HEALTH_SHOW_CAUSE=true")
			},
			do: askAndSearch,
		})
	}
	slices.SortStableFunc(all[3:], func(a, b attack) int { return strings.Compare(a.name, b.name) })
	return all
}

// formats are those of answers.
var formats = [...]string{"text", "json", "html"}

// forms is how many forms quoting has for the metadata of the attack.
const forms = 90

// quoting answers with a message that quotes a part of the metadata. The service's name is the number of the form.
func quoting(ctx context.Context, name string) (*healthpb.HealthCheckResponse, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	var texts []string
	for key, values := range sent {
		if key != "authorization" && !strings.HasPrefix(key, "x-") {
			continue
		}
		texts = append(texts, values[0])
		if basic, ok := strings.CutPrefix(values[0], "Basic "); ok {
			pair, err := base64.StdEncoding.DecodeString(basic)
			if err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
			texts = append(texts, string(pair))
		}
	}
	slices.Sort(texts)
	all := []string{fmt.Sprint(sent), fmt.Sprintf("%q", sent)}
	for _, text := range texts {
		b := []byte(text)
		all = append(all, text, strconv.Quote(text), strconv.QuoteToASCII(text), inJSON(text), base64.StdEncoding.EncodeToString(b), base64.RawStdEncoding.EncodeToString(b),
			base64.URLEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b))
	}
	n, err := strconv.Atoi(name)
	if err != nil || n >= len(all) {
		return nil, status.Error(codes.Internal, "no such form")
	}
	// In a message grpc-go replaces bytes that are no text.
	return nil, status.Errorf(codes.Internal, "you sent (%s), which is wrong", all[n])
}

func inJSON(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		return err.Error()
	}
	return string(quoted)
}

// random returns a text that is nowhere else.
func random() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// secret returns a text that must not be printed.
func (t *trial) secret() string {
	s := random()
	t.secrets = append(t.secrets, s)
	return s
}

// encoded returns the base64 of a text up to the last letters, which depend on padding.
func encoded(text string) string {
	return base64.RawStdEncoding.EncodeToString([]byte(text)[:len(text)/3*3])
}

// askAndSearch asks in every format, if the proxy has started, and searches what it prints.
func askAndSearch(t *trial) {
	if t.proxy.serves {
		for _, format := range formats {
			t.searched("/?format="+format, "")
		}
	}
	t.search("the log", t.proxy.text())
}

// searched makes a request, and searches the answer, the log so far and the metrics.
func (t *trial) searched(target, field string) {
	c := t.dial(&net.Dialer{})
	if c == nil {
		return
	}
	defer c.Close()
	fields := []string{"Connection: close"}
	if field != "" {
		fields = append(fields, field)
	}
	if t.get(c, target, fields...) != nil {
		return
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		t.answered("none")
		return
	}
	status, _, _ := strings.Cut(strings.TrimPrefix(string(answer), "HTTP/1.1 "), " ")
	t.answered(status)
	t.search("an answer", string(answer))
	t.search("the log", t.proxy.text())
	metrics, err := http.Get(t.proxy.metricsURL + "/metrics")
	if err != nil {
		t.Errorf("metrics: %v", err)
		return
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	if err != nil {
		t.Errorf("metrics: %v", err)
	}
	t.search("the metrics", string(text))
}

// search looks for secrets in what was printed.
func (t *trial) search(where, printed string) {
	for _, text := range []string{printed, html.UnescapeString(printed)} {
		for i, secret := range t.secrets {
			at := strings.Index(text, secret)
			if at < 0 || t.found[where+secret] {
				continue
			}
			t.found[where+secret] = true
			// These secrets were made for this attack, so they may be shown.
			t.Errorf("secret %d is in %s: …%s…", i+1, where, text[max(at-60, 0):min(at+len(secret)+30, len(text))])
		}
	}
}
