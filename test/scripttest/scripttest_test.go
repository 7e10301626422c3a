package scripttest

import (
	"slices"
	"testing"
)

func TestLeaks(t *testing.T) {
	t.Parallel()
	got := leaks("Authorization: Bearer s3cret-token\n", []string{"another", "s3cret-token"})
	if want := []string{"s3cret-token"}; !slices.Equal(got, want) {
		t.Errorf("leaks %q, want %q", got, want)
	}
}
