package server

import (
	"context"
	"time"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// lookAgain is how often it is looked whether who has a stream may still have it.
const lookAgain = time.Second

// while gives a context that ends when the token that the request showed is revoked
// or over. A database that is away ends nothing.
func (s *Server) while(ctx context.Context, r *Request) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if token := r.Caller.Token; token != nil {
		go func() {
			for s.opts.Clock.Sleep(ctx, lookAgain) == nil {
				good, err := s.control.TokenGood(ctx, *token)
				if err == nil && !good {
					cancel()
				} else if err != nil && !errs.Is(err, errs.DBUnavailable) && ctx.Err() == nil {
					s.log.Warn("whether a token is still good cannot be told", "err", err)
				}
			}
		}()
	}
	return ctx, cancel
}
