package hypertest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/vocab/id"
)

// hosts are two of them between which a machine moves: the bench's own is the source.
type hosts struct {
	*bench
	far *bench
}

// hosts gives two, or checks that the driver denies being able to move machines.
func (b *bench) hosts() (*hosts, bool) {
	b.Helper()
	_, is := b.Driver().(contract.Migrator)
	if is != b.Driver().Capabilities().Migrate {
		b.Fatalf("the driver is a Migrator: %v; its capabilities say %v", is, !is)
	}
	if !is {
		return nil, false
	}
	rec := NewRecorder()
	far := &bench{T: b.T, Harness: b.another(b.T, rec.Sink), rec: rec, ctx: b.ctx, another: b.another}
	far.adopt()
	return &hosts{bench: b, far: far}, true
}

// onTwo makes a case of one that takes two hosts; of a driver that moves nothing there is
// none.
func onTwo(run func(h *hosts)) func(b *bench) {
	return func(b *bench) {
		b.Helper()
		if h, ok := b.hosts(); ok {
			run(h)
		}
	}
}

func (b *bench) migrator() contract.Migrator {
	m, ok := b.Driver().(contract.Migrator)
	if !ok {
		b.Fatal("the driver cannot move machines any more")
	}
	return m
}

// trip is a machine that departed, and where it is to land.
type trip struct {
	from, to contract.Machine
	landing  contract.Landing
	wire     *Wire
}

// depart takes a machine so far that it can be sent.
func (h *hosts) depart(m contract.Machine) trip { return h.departs(m, contract.MoveOptions{}) }

func (h *hosts) departs(m contract.Machine, o contract.MoveOptions) trip {
	h.Helper()
	d, err := h.migrator().Depart(h.ctx, m.Ref, id.New(), o)
	if err != nil {
		h.Fatalf("depart: %v", err)
	}
	t := trip{from: m, to: h.far.Twin(h.T, m)}
	for i, k := range m.Disks {
		if k.Shared {
			t.to.Disks[i] = k // the other host has the same
		}
	}
	t.landing, err = h.far.migrator().Receive(h.ctx, t.to, d)
	if err != nil {
		h.Fatalf("receive: %v", err)
	}
	if again, err := h.far.migrator().Receive(h.ctx, t.to, d); err != nil || string(again.Pass) != string(t.landing.Pass) {
		h.Fatalf("received again: %+v %v", again, err)
	}
	if s := h.far.inspect(m.VM); s.Phase != vm.PhaseIncoming || s.Ref != t.to.Ref {
		h.Fatalf("what is to come is %+v", s)
	}
	t.wire = NewWire(Into(h.far.migrator, t.to.Ref))
	return t
}

// send sends, and tells what stage was seen last.
func (h *hosts) send(ctx context.Context, t trip, at func(contract.Progress)) (contract.Status, error) {
	return h.migrator().Send(ctx, t.from.Ref, t.landing, t.wire.Dial, at)
}

// sent sends a machine and expects that it arrives.
func (h *hosts) sent(t trip) {
	h.Helper()
	s, err := h.send(h.ctx, t, nil)
	if err != nil || s.Phase != vm.PhasePaused || s.Reason != contract.SentAway || s.Ref != t.from.Ref {
		h.Fatalf("sent: %+v %v (%v)", s, err, errors.Unwrap(err))
	}
	if s := h.inspect(t.from.VM); s.Phase != vm.PhasePaused || s.Reason != contract.SentAway {
		h.Fatalf("after it was sent, the source is %+v", s)
	}
	h.arrived(t)
}

func (h *hosts) arrived(t trip) {
	h.Helper()
	s, err := h.far.migrator().Arrived(h.ctx, t.to.Ref)
	if err != nil || s.Phase != vm.PhaseIncoming || s.Ref != t.to.Ref {
		h.Fatalf("arrived: %+v %v", s, err)
	}
}

// handOver gives a machine that has arrived to its new host.
func (h *hosts) handOver(t trip) {
	h.Helper()
	h.far.resume(t.to.Ref)
	h.kill(t.from.Ref)
	h.release(t.from.VM)
	h.clean()
}

func (b *bench) resume(r contract.Ref) {
	b.Helper()
	s, err := b.Driver().Resume(b.ctx, r)
	if err != nil || s.Phase != vm.PhaseRunning || s.Ref != r {
		b.Fatalf("resumed: %+v %v", s, err)
	}
}

// asBefore expects that a machine whose move was broken off goes on at its source, and
// that its target is gone, by itself or by Kill.
func (h *hosts) asBefore(t trip, want vm.Phase) {
	h.Helper()
	if s := h.inspect(t.from.VM); s.Phase != want || s.Ref != t.from.Ref {
		h.Fatalf("the source is %+v, want %s", s, want)
	}
	h.far.kill(t.to.Ref)
	h.far.release(t.to.VM)
	h.far.clean()
}

// Into dials straight into a machine in phase incoming, of the driver that its host has by
// then. Where nothing waits for the stream, it says why.
func Into(d func() contract.Migrator, r contract.Ref) contract.Dial {
	return func(ctx context.Context, s contract.Stream) (io.ReadWriteCloser, error) {
		near, far, err := SocketPair()
		if err != nil {
			return nil, err
		}
		stays := context.WithoutCancel(ctx) // a stream outlives its dialling
		listens, refused := make(chan struct{}), make(chan error, 1)
		begun := sync.OnceFunc(func() { close(listens) })
		go func() {
			err := d().Enter(stays, r, s, &heard{far, begun})
			refused <- err
		}()
		select {
		case <-listens:
			return near, nil
		case err := <-refused:
			return nil, errors.Join(err, near.Close())
		}
	}
}

// heard is a stream that tells when somebody begins to listen to it.
type heard struct {
	io.ReadWriteCloser
	begun func()
}

// Read implements io.Reader.
func (h *heard) Read(p []byte) (int, error) {
	h.begun()
	return h.ReadWriteCloser.Read(p)
}

// SocketPair gives the two ends of a connection, each of which can be ended by direction.
func SocketPair() (near, far net.Conn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]net.Conn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "stream")
		c, e := net.FileConn(f)
		ends[i], err = c, errors.Join(err, e, f.Close())
	}
	return ends[0], ends[1], err
}

// Wire carries bytes between two ends of a move. It can be cut, at once or after so many
// bytes.
type Wire struct {
	to contract.Dial

	mu    sync.Mutex
	live  map[io.Closer]bool
	cut   bool
	limit int64 // bytes that pass; -1 for all
	// stall holds bytes back until it is closed; nil for not.
	stall chan struct{}
}

// NewWire makes a wire that leads to where dial does.
func NewWire(to contract.Dial) *Wire { return &Wire{to: to, live: map[io.Closer]bool{}, limit: -1} }

// Dial opens a stream.
func (w *Wire) Dial(ctx context.Context, s contract.Stream) (io.ReadWriteCloser, error) {
	c, err := w.to(ctx, s)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = c.Close()
		return nil, io.ErrClosedPipe
	}
	w.live[c] = true
	return &wired{ReadWriteCloser: c, w: w, closed: make(chan struct{})}, nil
}

// Cut ends all streams, and lets none begin.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.live {
		_ = c.Close()
	}
}

// Snap ends all streams; others may begin.
func (w *Wire) Snap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.live {
		_ = c.Close()
	}
}

// Mend lets streams begin again after Cut.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.limit = false, -1
}

// CutAfter cuts once so many bytes have gone to the target.
func (w *Wire) CutAfter(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = n
}

// Stall holds back what goes to the target, until the function it gives is called.
func (w *Wire) Stall() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(chan struct{})
	w.stall = held
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stall = nil
		close(held)
	})
}

// pass takes n bytes from what may pass, and waits while they are held.
func (w *Wire) pass(n int, closed <-chan struct{}) (cut bool) {
	w.mu.Lock()
	held := w.stall
	if w.limit >= 0 {
		w.limit -= int64(n)
		cut = w.limit < 0
	}
	w.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-closed:
			return true
		}
	}
	if cut {
		w.Cut()
	}
	return cut
}

// wired is one stream of a wire.
type wired struct {
	io.ReadWriteCloser
	w      *Wire
	once   sync.Once
	closed chan struct{}
}

// Write implements io.Writer.
func (c *wired) Write(p []byte) (int, error) {
	if c.w.pass(len(p), c.closed) {
		return 0, io.ErrClosedPipe
	}
	return c.ReadWriteCloser.Write(p)
}

// CloseWrite ends one direction, where the stream can.
func (c *wired) CloseWrite() error {
	if h, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// Close implements io.Closer.
func (c *wired) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.w.mu.Lock()
	delete(c.w.live, c.ReadWriteCloser)
	c.w.mu.Unlock()
	return c.ReadWriteCloser.Close()
}

// atStage runs f once at a stage.
func atStage(s contract.Stage, f func()) func(contract.Progress) {
	var once sync.Once
	return func(p contract.Progress) {
		if p.Stage == s {
			once.Do(f)
		}
	}
}
