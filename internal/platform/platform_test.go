package platform_test

import (
	"context"
	"testing"
	"time"

	"example.com/grpc-health-http/internal/platform"
)

func TestWhere(t *testing.T) {
	for _, test := range []struct {
		service, function string
		cloudRun, lambda  bool
	}{{"", "", false, false}, {"health", "", true, false}, {"", "health", false, true}} {
		t.Setenv("K_SERVICE", test.service)
		t.Setenv("AWS_LAMBDA_FUNCTION_NAME", test.function)
		if platform.CloudRun() != test.cloudRun || platform.Lambda() != test.lambda {
			t.Errorf("%+v: Cloud Run %t, Lambda %t", test, platform.CloudRun(), platform.Lambda())
		}
	}
}

func TestWithMargin(t *testing.T) {
	t.Parallel()
	ctx, cancel := platform.WithMargin(t.Context())
	defer cancel()
	if _, ok := ctx.Deadline(); ok {
		t.Error("a context without a deadline got one")
	}
	end := time.Now().Add(time.Minute)
	ctx, cancel = context.WithDeadline(t.Context(), end)
	defer cancel()
	ctx, cancel = platform.WithMargin(ctx)
	defer cancel()
	if got, _ := ctx.Deadline(); !got.Equal(end.Add(-200 * time.Millisecond)) {
		t.Errorf("deadline %v, want 200ms before %v", got, end)
	}
}
