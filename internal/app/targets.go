package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"example.com/grpc-health-http/internal/settings"
	"example.com/grpc-health-http/internal/targets"
)

// TargetsFile returns the file that the settings name as the one that says what the App checks. Nothing is read yet. changed, which may be nil, is called
// for each content that is new, with the error why it is not used.
func (a *App) TargetsFile(changed func(err error)) *targets.File {
	s := a.fleet.settings
	return targets.New(targets.Options{
		Read:  func(ctx context.Context) ([]byte, error) { return a.Credentials.Content(ctx, s.TargetsFile) },
		Parse: s.ReadTargets,
		Set:   a.SetTargets,
		Loaded: func(n int, warnings []string, err error) {
			a.loaded(n, warnings, err)
			if changed != nil {
				changed(err)
			}
		},
	})
}

// loaded logs what came of a targets file.
func (a *App) loaded(n int, warnings []string, err error) {
	switch {
	case err == nil:
		a.Logger.Info("checking", append([]any{"targets", n}, interval(a.fleet.settings)...)...)
	case a.fleet.current.Load() == nil && a.file == nil: // who has asked for the first targets says why there are none
	default:
		a.Logger.Error("cannot use the targets file", "targets_as_before", len(a.fleet.all()))
		for _, problem := range problemsOf(err) {
			a.Logger.Error("wrong targets file", "problem", problem)
		}
	}
	for _, warning := range warnings {
		a.Logger.Warn("targets file", "warning", warning)
	}
}

// few is the first ten of the names, and how many more there are.
func few(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// maxProblems is how many problems of a targets file are logged: package settings tells 100, and how many more there are.
const maxProblems = 101

func problemsOf(err error) []string {
	var problems settings.Problems
	if !errors.As(err, &problems) {
		return []string{err.Error()}
	}
	return problems[:min(len(problems), maxProblems)]
}

// AtRequests has the targets file, where the settings name one, read again at requests, where it is old.
func (a *App) AtRequests(next http.Handler) http.Handler {
	if !a.fleet.named {
		return next
	}
	if a.file == nil { // one for all handlers, so that a reading serves them all
		a.file = a.TargetsFile(nil)
	}
	file := a.file
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = file.Refresh(r.Context()) // without targets the answer says so
		next.ServeHTTP(w, r)
	})
}
