package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
	"github.com/novacron/novacron/internal/vocab/id"
)

// lookAgain is how often it is looked whether those who have streams may still have
// them.
const lookAgain = time.Second

// watched are the streams that tokens opened. While there are any, one look for all
// of them together is taken again and again.
type watched struct {
	mu      sync.Mutex
	streams map[id.ID]map[*context.CancelFunc]bool
}

// while gives a context that ends when the token that the request showed is revoked
// or over. A database that is away ends nothing.
func (s *Server) while(ctx context.Context, r *Request) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	token := r.Caller.Token
	if token == nil {
		return ctx, cancel
	}
	w := &s.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.streams) == 0 {
		w.streams = map[id.ID]map[*context.CancelFunc]bool{}
		go s.watch()
	}
	if w.streams[*token] == nil {
		w.streams[*token] = map[*context.CancelFunc]bool{}
	}
	w.streams[*token][&cancel] = true
	return ctx, func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.streams[*token], &cancel)
	}
}

// watch looks until no stream is left, or the server ends.
func (s *Server) watch() {
	for {
		slept := s.opts.Clock.Sleep(s.life, lookAgain)
		tokens := s.watched.tokens(slept != nil)
		if len(tokens) == 0 {
			return
		}
		good, err := s.control.TokensGood(s.life, tokens)
		if err != nil {
			if !errs.Is(err, errs.DBUnavailable) && s.life.Err() == nil {
				s.log.Warn("whether tokens are still good cannot be told", "err", err)
			}
			continue
		}
		s.watched.end(slices.DeleteFunc(tokens, func(t id.ID) bool { return slices.Contains(good, t) }))
	}
}

// tokens gives those that have streams, and forgets the others. With none left, or
// when it is over, nobody looks any more until the next stream.
func (w *watched) tokens(over bool) []id.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.streams, func(_ id.ID, streams map[*context.CancelFunc]bool) bool { return over || len(streams) == 0 })
	return slices.Collect(maps.Keys(w.streams))
}

// end ends the streams of tokens.
func (w *watched) end(tokens []id.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range tokens {
		for cancel := range w.streams[t] {
			(*cancel)()
		}
	}
}
