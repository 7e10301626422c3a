package app

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/settings"
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
	*reports
	target     string // empty where there is one upstream only
	upstream   string // as the log shows it
	configured []string

	since statusSince

	mu   sync.Mutex
	seen map[kind]*repeated  // nil before the first
	down map[string][]string // addresses that were not serving, by service, as the log says; nil before the first
}

// reports is what the reporters of all upstreams share.
type reports struct {
	logger *slog.Logger
	now    func() time.Time
	// Names that callers made up have a limiter of their own: they cannot silence the configured ones.
	lines, linesOfMadeUp *rate.Limiter
}

func newReports(logger *slog.Logger) *reports {
	return &reports{logger: logger, now: time.Now, lines: newLimiter(), linesOfMadeUp: newLimiter()}
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

func newReporter(all *reports, t *settings.Target) *reporter {
	return &reporter{
		reports: all, target: t.Name, upstream: t.ShownAddr(), configured: health.Configured(t.Services), since: newStatusSince(t.Services),
	}
}

// verdict is a health.Trace's Verdict. A failure that is not logged, because there were too many, gets the id of the
// latest line of its kind.
func (r *reporter) verdict(ctx context.Context, v health.Verdict, evidence health.Evidence) (since time.Time, evidenceID string) {
	since, c := r.since.update(v)
	return since, r.log(ctx, v, evidence, c)
}

// log writes the verdict's line, and returns the id of the line that has its evidence.
func (r *reporter) log(ctx context.Context, v health.Verdict, evidence health.Evidence, c change) (evidenceID string) {
	known := !v.List && slices.Contains(r.configured, v.Service)
	if v.Status == health.Serving {
		if known && c.changed && r.lines.AllowN(r.now(), 1) {
			r.logger.LogAttrs(ctx, slog.LevelInfo, fmt.Sprintf("%s SERVING again after %v, before that %v", r.label(v), c.failing.Round(time.Millisecond), c.from),
				append(r.about(v), slog.String("previous_status", c.from.String()), slog.Float64("not_serving_seconds", c.failing.Seconds()))...)
		}
		if known {
			r.logDegraded(ctx, v)
		}
		if r.logger.Enabled(ctx, slog.LevelDebug) {
			r.logger.LogAttrs(ctx, slog.LevelDebug, "check", append(append(r.about(v), slog.Float64("duration_seconds", v.Duration.Seconds())), each(v)...)...)
		}
		return ""
	}
	level := slog.LevelWarn
	if !known {
		level = levelsOfMadeUp[v.Status]
	}
	if !r.logger.Enabled(ctx, level) {
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
	if r.seen == nil {
		r.seen = make(map[kind]*repeated)
	}
	r.seen[k] = &repeated{id: id}
	r.mu.Unlock()

	attributes := append(r.about(v), slog.String("evidence", id), slog.Float64("duration_seconds", v.Duration.Seconds()))
	if v.List {
		attributes = append(attributes, slog.Bool("list", true))
	}
	if quiet > 0 {
		attributes = append(attributes, slog.Int("not_logged_before", quiet))
	}
	attributes = append(attributes, each(v)...)
	if lines := evidence.Lines(); len(lines) > 0 {
		attributes = append(attributes, slog.Any("attempts", lines))
	}
	r.logger.LogAttrs(ctx, level, r.label(v)+" "+v.Status.String()+": "+v.Reason(), attributes...)
	return id
}

// logDegraded logs which addresses are not serving of a service that is, because enough others are, when that has changed.
func (r *reporter) logDegraded(ctx context.Context, v health.Verdict) {
	if v.Addresses == nil {
		return
	}
	down := v.Addresses.NotServing()
	r.mu.Lock()
	changed := !slices.Equal(r.down[v.Service], down)
	if changed = changed && r.lines.AllowN(r.now(), 1); changed {
		if r.down == nil {
			r.down = make(map[string][]string)
		}
		r.down[v.Service] = down
	}
	r.mu.Unlock()
	if !changed {
		return
	}
	level := slog.LevelWarn
	if len(down) == 0 {
		level = slog.LevelInfo
	}
	r.logger.LogAttrs(ctx, level, r.label(v)+" SERVING: "+v.Addresses.Sentence(), append(r.about(v), each(v)...)...)
}

// each is the attribute with the addresses of a verdict, where it has any.
func each(v health.Verdict) []slog.Attr {
	if v.Addresses == nil {
		return nil
	}
	return []slog.Attr{slog.Any("addresses", v.Addresses.Lines())}
}

// label is what a line calls the service.
func (r *reporter) label(v health.Verdict) string {
	service := serviceLabel(v)
	switch {
	case r.target == "":
		return service
	case service == wholeServer:
		return r.target
	}
	return r.target + "/" + service
}

func serviceLabel(v health.Verdict) string {
	switch {
	case v.List:
		return "(list)"
	case v.Service == "":
		return wholeServer
	}
	return v.Service
}

// wholeServer is how the log and metrics call the service with the empty name.
const wholeServer = "(server)"

// about is what every line about a verdict has. The keys are none that log systems reserve: service, status, host. Empty ones are
// left out.
func (r *reporter) about(v health.Verdict) []slog.Attr {
	var attributes []slog.Attr
	for _, a := range []slog.Attr{
		slog.String("target", r.target),
		slog.String("upstream", r.upstream),
		slog.String("grpc_service", v.Service),
		slog.String("health_status", v.Status.String()),
		slog.String("phase", string(v.Phase)),
		slog.String("grpc_code", v.GRPCCode()),
	} {
		if a.Value.String() != "" {
			attributes = append(attributes, a)
		}
	}
	return attributes
}

// levelsOfMadeUp are those of the lines about services that are not configured: what the server says of them is information. What
// keeps it from answering is a warning, and every failure of a configured service is.
var levelsOfMadeUp = map[health.Status]slog.Level{
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
