package settings

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Hash returns a number below 2^48 that changes when the settings do, and is the same wherever they are. Nothing of a secret can
// be found out from it, because no secret has a part in it: of a header whose value is in the settings only the name has, and of
// a private key in them only that it is there. A file is its path.
func (s *Settings) Hash() uint64 {
	v := &values{Settings: *s}
	sum := sha256.New()
	for i := range declaration {
		d := &declaration[i]
		name := d.name
		if name == "" {
			name = "-" + strings.Join(d.flags, " ") + d.probe
		}
		fmt.Fprintf(sum, "%s=%q\n", name, d.public(v))
	}
	return binary.BigEndian.Uint64(sum.Sum(nil)) >> 16
}

// public is the setting's value as far as it is no secret.
func (d *setting) public(v *values) string {
	switch value := d.field(v).(type) {
	case *headerLines:
		return fmt.Sprint(v.Headers) // which hides the values
	case *string:
		switch {
		case d.file == pemFile && strings.HasSuffix(d.name, "_KEY") && strings.Contains(*value, "-----BEGIN"):
			return "PEM"
		case d.name == "ADDR":
			return v.ShownAddr()
		}
		return *value
	case *bool:
		return fmt.Sprint(*value)
	case *int:
		return fmt.Sprint(*value)
	case *time.Duration:
		return value.String()
	case *[]string:
		return fmt.Sprintf("%q", *value)
	default:
		panic(fmt.Sprintf("a setting of type %T has no part in the hash", value)) // TestHash tries all of them
	}
}

// ShownAddr is Addr for people: without the user and password that the authority of a dns or passthrough target may have.
func (u *Upstream) ShownAddr() string {
	scheme, rest, found := strings.Cut(u.Addr, "://")
	authority, endpoint, slash := strings.Cut(rest, "/")
	at := strings.LastIndex(authority, "@")
	if !found || !slash || at < 0 || strings.EqualFold(scheme, "unix") {
		return u.Addr
	}
	return scheme + "://" + authority[at+1:] + "/" + endpoint
}
