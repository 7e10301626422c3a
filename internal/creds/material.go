package creds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
)

// material makes a T of roots and a certificate, anew only when one of the two was replaced: what
// is handed out stays the same value as long as they do.
type material[T any] struct {
	roots *held[*x509.CertPool]
	pair  *held[*tls.Certificate]
	build func(*x509.CertPool, *tls.Certificate) T

	mu    sync.Mutex
	made  bool
	value T
	from  struct {
		roots *x509.CertPool
		pair  *tls.Certificate
	}
}

func (m *material[T]) get(ctx context.Context, refresh bool) (T, error) {
	var rootsErr error
	var rereading sync.WaitGroup
	// Side by side, for each may take its patience.
	rereading.Go(func() { _, rootsErr = m.roots.get(ctx, refresh) })
	_, pairErr := m.pair.get(ctx, refresh)
	rereading.Wait()
	if err := errors.Join(pairErr, rootsErr); err != nil {
		var none T
		return none, err
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	// The latest of both, not what get returned: another use may have got newer ones since.
	if roots, pair := m.roots.latest(), m.pair.latest(); !m.made || roots != m.from.roots || pair != m.from.pair {
		m.value, m.made = m.build(roots, pair), true
		m.from.roots, m.from.pair = roots, pair
	}
	return m.value, nil
}
