package serve

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// quiet is the time between two lines of a server about what went wrong.
const quiet = time.Second

// errorLog takes the lines that net/http writes, and keeps callers from filling the log with them.
// net/http gives them no level: how they begin is all there is to tell them apart.
type errorLog struct {
	logger *slog.Logger
	now    func() time.Time

	mu         sync.Mutex
	next       time.Time // no line before
	suppressed int       // since the last line
}

func newErrorLog(logger *slog.Logger) *errorLog {
	return &errorLog{logger: logger, now: time.Now}
}

// Write takes one line.
func (l *errorLog) Write(line []byte) (int, error) {
	detail := strings.TrimSpace(string(line))
	if strings.HasPrefix(detail, "http: TLS handshake error") {
		// Port scanners, and load balancers that only connect.
		l.logger.Debug("TLS handshake failed", "detail", detail)
		return len(line), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Before(l.next) {
		l.suppressed++
		return len(line), nil
	}
	level := slog.LevelWarn
	if strings.HasPrefix(detail, "http: panic serving") {
		level = slog.LevelError
	}
	l.logger.Log(context.Background(), level, "HTTP server", "detail", detail, "suppressed", l.suppressed)
	l.next, l.suppressed = now.Add(quiet), 0
	return len(line), nil
}
