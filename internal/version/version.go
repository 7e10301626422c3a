// Package version tells which build this is.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
)

// tag is the release, set when one is built: -ldflags "-X example.com/grpc-health-http/internal/version.tag=v1.2.3".
var tag string

// Version describes a build.
type Version struct {
	// Tag is the release, "devel" outside of one.
	Tag string
	// Commit is the source's revision, with "-dirty" behind it where it was changed; "unknown" outside a checkout.
	Commit string
	// Go is the toolchain's version.
	Go string
}

// Get reads the version of the running program.
func Get() Version {
	v := Version{Tag: cmp.Or(tag, "devel"), Commit: "unknown", Go: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			v.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if v.Commit != "unknown" {
		v.Commit += dirty
	}
	return v
}

func (v Version) String() string {
	return fmt.Sprintf("%s (commit %s, %s)", v.Tag, v.Commit, v.Go)
}
