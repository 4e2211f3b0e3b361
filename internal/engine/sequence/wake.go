package sequence

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/novacron/novacron/internal/engine/query"
)

// Channels of LISTEN: something was committed, and something was numbered.
const (
	committed = "novacron_committed"
	numbered  = "novacron_numbered"
)

// notify passes wake-ups on to other servers, at most one each NotifyEvery: the
// first goes out at once, those within the pause become one.
func (s *Sequencer) notify(ctx context.Context) {
	q := query.New(s.opts.Pool)
	for {
		var channel string
		select {
		case <-ctx.Done():
			return
		case <-s.tell:
			channel = committed
		case <-s.told:
			channel = numbered
		}
		s.complain(ctx, "wake other servers", q.Notify(ctx, channel))
		if s.opts.Clock.Sleep(ctx, s.opts.NotifyEvery) != nil {
			return
		}
	}
}

// listen hears the others' wake-ups. A connection that broke is made again;
// what was missed meanwhile the polls find.
func (s *Sequencer) listen(ctx context.Context) {
	for pause := time.Duration(0); ctx.Err() == nil; {
		began := s.opts.Clock.Boot()
		s.complain(ctx, "listen for wake-ups", s.hear(ctx))
		if s.opts.Clock.Boot()-began > 10*time.Second {
			pause = 0
		}
		pause = min(pause+100*time.Millisecond, 5*time.Second)
		if s.opts.Clock.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// silence is how long a listener hears nothing before it asks whether its
// connection is alive at all.
const silence = 10 * time.Second

func (s *Sequencer) hear(ctx context.Context) error {
	cfg := s.opts.Pool.Config().ConnConfig.Copy()
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { s.heard(n.Channel) }
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+committed+"; LISTEN "+numbered); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for ctx.Err() == nil {
		if err := s.hearUntil(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// hearUntil waits for one notification or checks the connection.
func (s *Sequencer) hearUntil(ctx context.Context, conn *pgx.Conn) error {
	short, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	err := conn.PgConn().WaitForNotification(short)
	if err == nil || ctx.Err() != nil {
		return nil
	}
	if short.Err() == nil {
		return fmt.Errorf("wait: %w", err)
	}
	check, stop := context.WithTimeout(ctx, silence)
	defer stop()
	if err := conn.Ping(check); err != nil {
		return fmt.Errorf("check the connection: %w", err)
	}
	return nil
}

func (s *Sequencer) heard(channel string) {
	switch {
	case channel == numbered:
		poke(s.hub.wake)
	case s.leading.Load():
		poke(s.number)
	}
}
