package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// linesPerSecond and burst limit the log lines of one kind, so that neither an outage under load nor a caller with made-up names
// floods the log.
const (
	linesPerSecond = 10
	burst          = 20
)

// newLimiter returns what limits the log lines of one kind.
func newLimiter() *rate.Limiter { return rate.NewLimiter(linesPerSecond, burst) }

// reporter logs the verdicts of checks. It gives each verdict the time since when the service has its status, and each failure
// the id of the line with its evidence.
type reporter struct {
	logger     *slog.Logger
	configured []string
	now        func() time.Time

	since statusSince

	mu   sync.Mutex
	seen map[kind]*repeated
	// Names that callers made up have a limiter of their own: they cannot silence the configured ones.
	lines, linesOfMadeUp *rate.Limiter
}

// kind is what makes two failures look alike. There are few: the name of a service that is not
// configured is left out.
type kind struct {
	service string
	madeUp  bool
	status  health.Status
	phase   health.Phase
}

// repeated is a kind of failure that was logged.
type repeated struct {
	id    string // of its latest line
	quiet int    // failures since then that were not logged
}

func newReporter(logger *slog.Logger, configured []string) *reporter {
	return &reporter{
		logger: logger, configured: health.Configured(configured), now: time.Now,
		since: newStatusSince(configured), seen: make(map[kind]*repeated),
		lines: newLimiter(), linesOfMadeUp: newLimiter(),
	}
}

// verdict is a health.Trace's Verdict. A failure that is not logged, because there were too many, gets the id of the
// latest line of its kind.
func (r *reporter) verdict(ctx context.Context, v health.Verdict, evidence health.Evidence) (since time.Time, evidenceID string) {
	since, changed := r.since.update(v)
	return since, r.log(ctx, v, evidence, changed)
}

// log writes the verdict's line, and returns the id of the line that has its evidence.
func (r *reporter) log(ctx context.Context, v health.Verdict, evidence health.Evidence, changed bool) (evidenceID string) {
	known := !v.List && slices.Contains(r.configured, v.Service)
	if v.Status == health.Serving {
		if known && changed && r.lines.AllowN(r.now(), 1) {
			r.logger.InfoContext(ctx, "serving again", "service", v.Service)
		}
		if r.logger.Enabled(ctx, slog.LevelDebug) {
			r.logger.DebugContext(ctx, "check", "service", v.Service, "status", v.Status.String(), "duration_seconds", v.Duration.Seconds())
		}
		return ""
	}
	if !r.logger.Enabled(ctx, levels[v.Status]) {
		return "" // without a line there is no id
	}
	k := kind{madeUp: !known, status: v.Status, phase: v.Phase}
	lines := r.linesOfMadeUp
	if known {
		k.service = v.Service
		lines = r.lines
	}
	allowed := inert.HasRoom(ctx) && lines.AllowN(r.now(), 1)
	r.mu.Lock()
	before := r.seen[k]
	if !allowed && before != nil && !r.logger.Enabled(ctx, slog.LevelDebug) {
		before.quiet++
		r.mu.Unlock()
		return before.id
	}
	quiet := 0
	if before != nil {
		quiet = before.quiet
	}
	id := newID()
	r.seen[k] = &repeated{id: id}
	r.mu.Unlock()

	attributes := []slog.Attr{
		slog.String("evidence", id),
		slog.String("service", v.Service),
		slog.String("status", v.Status.String()),
		slog.String("phase", string(v.Phase)),
		slog.String("grpc_code", v.GRPCCode()),
		slog.Float64("duration_seconds", v.Duration.Seconds()),
		slog.Any("attempts", evidence.Lines()),
	}
	if v.Err != nil {
		attributes = append(attributes, slog.String("cause", v.Err.Error()))
	}
	if v.List {
		attributes = append(attributes, slog.Bool("list", true))
	}
	if quiet > 0 {
		attributes = append(attributes, slog.Int("not_logged_before", quiet))
	}
	r.logger.LogAttrs(ctx, levels[v.Status], "not serving", attributes...)
	return id
}

// levels are those of the lines: what the server says of itself is information, what keeps it from
// answering is a warning.
var levels = map[health.Status]slog.Level{
	health.NotServing:       slog.LevelInfo,
	health.Unknown:          slog.LevelInfo,
	health.ServiceUnknown:   slog.LevelInfo,
	health.Unimplemented:    slog.LevelWarn,
	health.ConnectionFailed: slog.LevelWarn,
	health.Timeout:          slog.LevelWarn,
	health.RPCFailed:        slog.LevelWarn,
	health.Overloaded:       slog.LevelWarn,
}

// newID is a new evidence id.
func newID() string {
	var id [6]byte
	rand.Read(id[:]) // never fails: crypto/rand
	return hex.EncodeToString(id[:])
}
