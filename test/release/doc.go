// Package release tests the configuration of releases. Its tests build everything that a release has, twice, and so are
// among the long ones: go test -tags long.
package release
