// Package secretstest serves AWS Secrets Manager's GetSecretValue on loopback. A test stores secrets, makes the service fail or
// answer slowly, and counts the requests. Only tests import it.
package secretstest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Manager is the service.
type Manager struct {
	// URL is its endpoint.
	URL string

	mu            sync.Mutex
	values        map[string]any // by ARN: a string, bytes, or a failure
	down          bool           // closes connections without an answer
	hung          bool           // leaves requests without an answer
	delay         time.Duration  // before each answer
	fetches       map[string]int
	connections   map[string]bool // by the caller's address
	authorization string
}

// failure is an answer that is not a secret.
type failure struct {
	status int
	body   string
}

// Start runs the service until the test ends.
func Start(t testing.TB) *Manager {
	t.Helper()
	m := &Manager{values: make(map[string]any), fetches: make(map[string]int), connections: make(map[string]bool)}
	server := httptest.NewServer(m)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	m.URL = server.URL
	return m
}

// SetString stores a secret as SecretString.
func (m *Manager) SetString(arn, value string) { m.set(arn, value) }

// SetBinary stores a secret as SecretBinary.
func (m *Manager) SetBinary(arn string, value []byte) { m.set(arn, value) }

// SetError makes the service answer with an error of a type, such as "AccessDeniedException".
func (m *Manager) SetError(arn, kind string) {
	m.SetAnswer(arn, http.StatusBadRequest, `{"__type":"`+kind+`","Message":"set by the test"}`)
}

// SetAnswer makes the service answer with any status and body.
func (m *Manager) SetAnswer(arn string, status int, body string) { m.set(arn, failure{status, body}) }

// SetDown makes the service close the connection of every request without an answer, or stop doing so.
func (m *Manager) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

// SetHung makes the service leave requests that arrive from now on without an answer, or stop doing so. It never answers them
// later.
func (m *Manager) SetHung(hung bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hung = hung
}

// SetDelay delays each answer.
func (m *Manager) SetDelay(delay time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = delay
}

// Connections returns how many connections had a request.
func (m *Manager) Connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.connections)
}

// Fetches returns how many requests there were for a secret.
func (m *Manager) Fetches(arn string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fetches[arn]
}

// Authorization returns the Authorization header of the latest request. It names the access key, the region and the service.
func (m *Manager) Authorization() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.authorization
}

func (m *Manager) set(arn string, value any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[arn] = value
}

// ServeHTTP answers as https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html says.
func (m *Manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct{ SecretId string }
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &request) != nil || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
		http.Error(w, "not a GetSecretValue request", http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	m.fetches[request.SecretId]++
	m.authorization = r.Header.Get("Authorization")
	m.connections[r.RemoteAddr] = true
	down, hung, delay, value := m.down, m.hung, m.delay, m.values[request.SecretId]
	m.mu.Unlock()
	if hung {
		<-r.Context().Done()
		return
	}
	time.Sleep(delay)
	if down {
		panic(http.ErrAbortHandler)
	}
	if value == nil {
		value = failure{http.StatusBadRequest, `{"__type":"ResourceNotFoundException","Message":"can't find it"}`}
	}
	answer := map[string]any{"ARN": request.SecretId, "Name": request.SecretId[strings.LastIndex(request.SecretId, ":")+1:]}
	switch value := value.(type) {
	case string:
		answer["SecretString"] = value
	case []byte:
		answer["SecretBinary"] = value // JSON encodes bytes in Base64, as the service does
	case failure:
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(value.status)
		io.WriteString(w, value.body)
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	json.NewEncoder(w).Encode(answer)
}
