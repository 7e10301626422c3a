package healthtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Mounted are the paths of a client certificate, its key and a CA. As with secrets that platforms mount, each file has its own
// directory.
type Mounted struct{ Cert, Key, CA string }

// Mount returns paths of files that do not exist yet.
func Mount(t testing.TB) Mounted {
	t.Helper()
	return Mounted{filepath.Join(t.TempDir(), "cert"), filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "ca")}
}

// Write replaces the files one after the other, as platforms do.
func (m Mounted) Write(t testing.TB, cert, key, ca []byte) {
	t.Helper()
	for path, content := range map[string][]byte{m.Cert: cert, m.Key: key, m.CA: ca} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Env returns the settings of a variant that checks addr with these files, and dials for every RPC.
func (m Mounted) Env(addr string) []string {
	return []string{"GRPC_HEALTH_ADDR=" + addr, "GRPC_HEALTH_TLS=true", "GRPC_HEALTH_CA_CERT=" + m.CA, "GRPC_HEALTH_CLIENT_CERT=" + m.Cert, "GRPC_HEALTH_CLIENT_KEY=" + m.Key, "GRPC_HEALTH_CONN_MAX_AGE=0"}
}
