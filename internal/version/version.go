// Package version tells which build this is.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// tag and commit are set when a release is built, which says nothing of git to the toolchain:
// -ldflags "-X example.com/grpc-health-http/internal/version.tag=v1.2.3".
var tag, commit string

// Version describes a build.
type Version struct {
	// Tag is the release. Otherwise it is the module's version as the toolchain knows it, from go install or git, such
	// as v0.0.0-20261120213553-e2c27b8a0cf1; and "devel" where it knows none.
	Tag string
	// Commit is the source's revision, with "-dirty" behind it where it was changed; "unknown" outside a checkout.
	Commit string
	// Go is the toolchain's version.
	Go string
}

// Get reads the version of the running program.
func Get() Version {
	v := Version{Tag: tag, Commit: commit}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Go = info.GoVersion
		if main := info.Main.Version; main != "(devel)" {
			v.Tag = cmp.Or(v.Tag, main)
		}
		v.Commit = cmp.Or(v.Commit, revision(info))
	}
	return Version{Tag: cmp.Or(v.Tag, "devel"), Commit: cmp.Or(v.Commit, "unknown"), Go: cmp.Or(v.Go, "unknown")}
}

// revision is git's, as the toolchain has stamped it
// (https://pkg.go.dev/runtime/debug#BuildSetting); empty where it has not.
func revision(info *debug.BuildInfo) string {
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}

func (v Version) String() string {
	return fmt.Sprintf("%s (commit %s, %s)", v.Tag, v.Commit, v.Go)
}
