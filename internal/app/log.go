package app

import (
	"io"
	"log/slog"
	"os"
	"strings"

	"example.com/grpc-health-http/internal/inert"
	"example.com/grpc-health-http/internal/platform"
	"example.com/grpc-health-http/internal/settings"
)

// NewLogger returns the logger that the settings ask for. On Cloud Run its
// JSON has the keys that Cloud Logging reads
// (https://cloud.google.com/logging/docs/structured-logging): severity and message.
func NewLogger(w io.Writer, s *settings.Settings) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // the settings allow slog's names only
	options := &slog.HandlerOptions{Level: level}
	if s.LogFormat != "json" {
		return inert.Logger(slog.New(slog.NewTextHandler(w, options)), nil)
	}
	if platform.CloudRun() {
		options.ReplaceAttr = cloudLogging
		return inert.Logger(slog.New(traced{slog.NewJSONHandler(w, options)}), nil)
	}
	return inert.Logger(slog.New(slog.NewJSONHandler(w, options)), nil)
}

// NewFallbackLogger returns the logger for what is wrong with the settings: in JSON, unless LOG_FORMAT says text.
func NewFallbackLogger(w io.Writer) *slog.Logger {
	s := settings.Settings{Process: settings.Process{LogFormat: "json"}}
	if strings.EqualFold(strings.TrimSpace(os.Getenv(settings.Prefix+"LOG_FORMAT")), "text") {
		s.LogFormat = "text"
	}
	return NewLogger(w, &s)
}

// severities are Cloud Logging's names of slog's levels, where they differ.
var severities = map[slog.Level]string{slog.LevelWarn: "WARNING"}

func cloudLogging(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.MessageKey:
		a.Key = "message"
	case slog.LevelKey:
		a.Key = "severity"
		if level, ok := a.Value.Any().(slog.Level); ok && severities[level] != "" {
			a.Value = slog.StringValue(severities[level])
		}
	}
	return a
}
