package app

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"example.com/grpc-health-http/internal/creds"
)

// callers logs who is turned away, limited in rate: anybody can come without a token, and a checker that is set up wrongly comes
// for ever.
type callers struct {
	logger *slog.Logger
	now    func() time.Time
	lines  *rate.Limiter

	mu    sync.Mutex
	quiet int // callers since the last line that were not logged
}

// turnedAwayEvery is the time from line to line while callers keep being turned away, and turnedAwayBurst how many lines come at
// once.
const (
	turnedAwayEvery = 10 * time.Second
	turnedAwayBurst = 10
)

func newCallers(logger *slog.Logger) *callers {
	return &callers{logger: logger, now: time.Now, lines: rate.NewLimiter(rate.Every(turnedAwayEvery), turnedAwayBurst)}
}

// turnedAway tells of one caller, with the address that it came from, empty where that is not known.
func (c *callers) turnedAway(ctx context.Context, reason, from, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.lines.AllowN(c.now(), 1) {
		c.quiet++
		return
	}
	attributes := []slog.Attr{slog.String("reason", reason)}
	if from != "" {
		attributes = append(attributes, slog.String("caller", from))
	}
	if c.quiet > 0 {
		attributes = append(attributes, slog.Int("not_logged_before", c.quiet))
	}
	c.quiet = 0
	c.logger.LogAttrs(ctx, slog.LevelWarn, "a caller was turned away: "+why, attributes...)
}

// unauthorized tells of a caller without the token.
func (c *callers) unauthorized(r *http.Request, why string) {
	c.turnedAway(r.Context(), "token", r.RemoteAddr, why)
}

// RefusedCertificate tells of a caller whom the listener refused because of the client certificate.
func (a *App) RefusedCertificate(caller net.Addr, err error) {
	a.callers.turnedAway(context.Background(), "client_certificate", caller.String(), creds.CallerFault(err))
	if a.rejected != nil {
		a.rejected("client_certificate")
	}
}
