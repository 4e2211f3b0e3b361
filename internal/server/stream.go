package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/novacron/novacron/api"
	"github.com/novacron/novacron/internal/control"
	"github.com/novacron/novacron/internal/domain/auth"
	"github.com/novacron/novacron/internal/domain/event"
	"github.com/novacron/novacron/internal/engine/sequence"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/vocab/clock"
	"github.com/novacron/novacron/internal/vocab/errs"
)

func (s *Server) streamRoutes() []Route {
	return []Route{
		raw(Route{
			Method: "GET", Path: "/api/v1/events", ID: "followEvents", Summary: "Follow committed changes in order (WebSocket, or SSE)", Need: auth.Need{Resource: auth.VM, Action: auth.Read}, stream: "one Event per message",
			Query: []Param{{"after", "Resume after this number; from now on by default."}},
		}, s.events),
		raw(Route{
			Method: "GET", Path: "/api/v1/vms/{vm}/log", ID: "readVMLog", Summary: "Read a VM's serial log", Need: auth.Need{Resource: auth.VM, Action: auth.Read}, stream: "text", patience: logTimeout,
			Query: []Param{{"follow", "true: go on as it grows."}},
		}, s.vmLog),
		raw(Route{
			Method: "GET", Path: consolePath, ID: "openVMConsole", Summary: "Attach to a VM's serial console (WebSocket)", Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, stream: "binary messages both ways",
			Query: []Param{{"view_only", "true: look on, from what is kept of it; what is sent is left out. Others may be there, too."}},
		}, s.vmConsole),
		handle(Route{Method: "POST", Path: "/api/v1/vms/{vm}/console-tickets", ID: "createVMConsoleTicket", Summary: "Make a ticket that opens a VM's console once, within 30 seconds", Need: auth.Need{Resource: auth.VM, Action: auth.Execute}, Status: http.StatusCreated}, s.createConsoleTicket),
	}
}

const consolePath = "/api/v1/vms/{vm}/console"

func (s *Server) createConsoleTicket(ctx context.Context, r *Request, _ none) (reply[api.ConsoleTicket], error) {
	ticket, expires, err := s.control.ConsoleTicket(ctx, r.Caller, r.Arg("vm"))
	return reply[api.ConsoleTicket]{Body: api.ConsoleTicket{Ticket: ticket, ExpiresAt: expires.UTC(), Protocols: []string{consoleProtocol, ticketProtocol + ticket}}}, err
}

// streamTimeout is how long a node may take to open a stream.
const streamTimeout = 10 * time.Second

// openStream asks the VM's node for a stream.
func (s *Server) openStream(ctx context.Context, r *Request, command func(ticket string, v target) nodelink.Command) (net.Conn, error) {
	v, err := s.control.Placed(ctx, r.Arg("vm"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	return s.tickets.dialBack(ctx, func(ticket string) error {
		return s.agents.Call(ctx, v.Node, command(ticket, v), nil)
	})
}

type target = control.Incarnation

// vmLog streams the serial log.
func (s *Server) vmLog(w http.ResponseWriter, r *Request) error {
	follow := r.URL.Query().Get("follow") == "true"
	conn, err := s.openStream(r.Context(), r, func(ticket string, v target) nodelink.Command {
		return &nodelink.OpenLog{VM: v.VM, Follow: follow, Ticket: ticket}
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	r.park()
	ctx, cancel := s.while(r.Context(), r)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, err = io.Copy(flushing{w, http.NewResponseController(w)}, conn)
	return ignore(err)
}

// flushing sends each piece at once.
type flushing struct {
	w  io.Writer
	rc *http.ResponseController
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.rc.Flush()
}

// mostMessage bounds a message of a console: who types or pastes sends less at once.
const mostMessage = 64 << 10

// upgrades refuses what is no request for a WebSocket, or comes from another site's
// page, before anything is opened for it.
func upgrades(r *http.Request) error {
	if o := r.Header.Get("Origin"); o != "" {
		if u, err := url.Parse(o); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return errs.New(errs.Forbidden, "a page of another site may not open this: its origin is %q", errs.Clip(o))
		}
	}
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	if err != nil || len(key) != 16 || r.Header.Get("Sec-WebSocket-Version") != "13" ||
		!strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		return errs.New(errs.Unsupported, "this is a WebSocket: ask for it as one (RFC 6455, version 13)")
	}
	return nil
}

// vmConsole joins a WebSocket to the serial console, or shows it.
func (s *Server) vmConsole(w http.ResponseWriter, r *Request) error {
	if err := upgrades(r.Request); err != nil {
		return err
	}
	viewOnly := r.URL.Query().Get("view_only") == "true"
	return s.joinWebSocket(w, r, "vm.console", func(ticket string, v target) nodelink.Command {
		if viewOnly {
			return &nodelink.OpenLog{VM: v.VM, Follow: true, Ticket: ticket} // it takes nothing
		}
		return &nodelink.OpenConsole{VM: v.VM, Epoch: v.Epoch, Ticket: ticket}
	})
}

// joinWebSocket joins a WebSocket to a stream of the VM's node, for as long as who
// asked may have it, and puts it on record as an action.
func (s *Server) joinWebSocket(w http.ResponseWriter, r *Request, action string, command func(ticket string, v target) nodelink.Command) error {
	conn, err := s.openStream(r.Context(), r, command)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.control.ConsoleOpened(r.Context(), r.Caller, r.Arg("vm"), action)
	r.park()
	ws, err := websocket.Accept(w, r.Request, &websocket.AcceptOptions{Subprotocols: []string{consoleProtocol}})
	if err != nil {
		return ignore(err) // Accept has answered
	}
	defer func() { _ = ws.CloseNow() }()
	ctx, cancel := s.while(r.Context(), r)
	defer cancel()
	peer := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	ws.SetReadLimit(mostMessage) // NetConn has lifted it
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{peer, conn}, {conn, peer}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	wg.Wait()
	return nil
}

// seqHeader tells the number a stream begins after, so that a reader "from now
// on" can resume although nothing came before it broke.
const seqHeader = "Novacron-Event-Seq"

// events follows committed changes.
func (s *Server) events(w http.ResponseWriter, r *Request) error {
	after, err := resumePoint(r)
	if err != nil {
		return err
	}
	sse := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	sub, err := s.seq.Hub().Subscribe(r.Context(), after, nil)
	if err != nil {
		return eventError(err)
	}
	if !sse {
		if err := upgrades(r.Request); err != nil {
			return err
		}
	}
	r.park()
	w.Header().Set(seqHeader, strconv.FormatInt(sub.Position(), 10))
	if sse {
		return s.eventsSSE(w, r, sub)
	}
	return s.eventsWS(w, r, sub)
}

func eventError(err error) error {
	switch {
	case errors.Is(err, sequence.ErrTooOld):
		return errs.New(errs.InvalidCursor, "events that old are no longer kept: read the objects again and follow from now on").Because(err)
	case errors.Is(err, sequence.ErrAhead):
		return errs.New(errs.InvalidCursor, "no event has that number yet: read the objects again and follow from now on").Because(err)
	default:
		return err
	}
}

// resumePoint: Last-Event-ID, as browsers send it when they come back to the
// address they began with, or that address's ?after.
func resumePoint(r *Request) (int64, error) {
	at := r.Header.Get("Last-Event-ID")
	if at == "" {
		at = r.URL.Query().Get("after")
	}
	if at == "" {
		return sequence.Latest, nil
	}
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil || n < 0 {
		return 0, errs.New(errs.InvalidCursor, "after is the number of an event")
	}
	return n, nil
}

func (s *Server) eventsWS(w http.ResponseWriter, r *Request, sub *sequence.Subscription) error {
	ws, err := websocket.Accept(w, r.Request, nil)
	if err != nil {
		return ignore(err) // Accept has answered
	}
	defer func() { _ = ws.CloseNow() }()
	ctx := ws.CloseRead(r.Context())
	err = follow(ctx, s.opts.Clock, sub, func(ctx context.Context, b []byte, _ int64) error { return ws.Write(ctx, websocket.MessageText, b) }, ws.Ping)
	if s.life.Err() != nil {
		_ = ws.Close(websocket.StatusGoingAway, "the server stops")
		return nil
	}
	if err != nil && ctx.Err() == nil {
		_ = ws.Close(websocket.StatusTryAgainLater, "resume after the last number")
	}
	return nil
}

func (s *Server) eventsSSE(w http.ResponseWriter, r *Request, sub *sequence.Subscription) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := flushing{w, http.NewResponseController(w)}
	if err := out.rc.Flush(); err != nil {
		return ignore(err)
	}
	err := follow(r.Context(), s.opts.Clock, sub, func(_ context.Context, b []byte, seq int64) error {
		_, err := fmt.Fprintf(out, "id: %d\ndata: %s\n\n", seq, b)
		return err
	}, func(context.Context) error {
		_, err := io.WriteString(out, ": still here\n\n")
		return err
	})
	return ignore(err)
}

// quiet is how long a stream may say nothing before it shows that it lives.
const quiet = 20 * time.Second

// patiently runs one exchange with a client that may not answer.
func patiently(ctx context.Context, exchange func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return exchange(ctx)
}

// source gives events: a sequence.Subscription.
type source interface {
	Next(ctx context.Context) ([]event.Event, error)
}

// follow sends events until the reader or ctx ends. A client that takes nothing,
// or does not answer a ping, is one that ended. Only one exchange is under way at
// a time, and what is not sent yet stays in the database.
func follow(ctx context.Context, clk clock.Clock, sub source, send func(context.Context, []byte, int64) error, ping func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turn := make(chan struct{}, 1)
	go clock.Every(ctx, clk, quiet, func(ctx context.Context) {
		select {
		case turn <- struct{}{}:
		default:
			return // events are being sent: they show that the stream lives
		}
		if err := patiently(ctx, ping); err != nil {
			cancel(err)
		}
		<-turn
	})
	for {
		events, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			b, err := json.Marshal(toEvent(e))
			if err != nil {
				return err
			}
			turn <- struct{}{} // for as long as a ping may take
			err = patiently(ctx, func(ctx context.Context) error { return send(ctx, b, e.Seq) })
			<-turn
			if err != nil {
				return err
			}
		}
	}
}
