package health

import "sync"

// Configured returns what is checked where nothing is asked for: the services of the settings, or, where these name none, the
// whole server, which has the empty name.
func Configured(services []string) []string {
	if len(services) == 0 {
		return []string{""}
	}
	return services
}

// SideBySide calls f with 0 to n-1, each in a goroutine of its own, and returns the results in this order.
func SideBySide[T any](n int, f func(i int) T) []T {
	results := make([]T, n)
	if n == 1 {
		results[0] = f(0)
		return results
	}
	// A panic moves to the caller's goroutine, where its server recovers it; in one of its own it would
	// end the process.
	panics := make(chan any, n)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panics <- p
				}
			}()
			results[i] = f(i)
		})
	}
	all.Wait()
	select {
	case p := <-panics:
		panic(p)
	default:
	}
	return results
}
