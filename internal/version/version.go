// Package version says which release, commit and Go version the running program was built from.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// tag and commit are set by a release build, because it switches the toolchain's stamping of git's state off:
// -ldflags "-X example.com/grpc-health-http/internal/version.tag=v1.2.3".
var tag, commit string

// Version describes a build.
type Version struct {
	// Tag is the release. Without one it is the module's version that the toolchain takes from go install or git, such
	// as v0.0.0-20261120213553-e2c27b8a0cf1, or "devel" where there is none.
	Tag string
	// Commit is the git revision, followed by "-dirty" if files had been changed; "unknown" outside a checkout.
	Commit string
	// Go is the toolchain's version.
	Go string
}

// Get returns the version of the running program.
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

// revision returns the git revision that the toolchain has stamped into the program
// (https://pkg.go.dev/runtime/debug#BuildSetting), or "".
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
