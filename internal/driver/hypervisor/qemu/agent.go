package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/driver/hypervisor/contract"
	"github.com/novacron/novacron/internal/driver/hypervisor/qga"
	"github.com/novacron/novacron/internal/vocab/errs"
)

var _ contract.Guester = (*Driver)(nil)

const (
	// agentSocket is the name of the socket that QEMU makes in its folder, and agentPort
	// what agents in guests look for.
	agentSocket = "ga"
	agentPort   = "org.qemu.guest_agent.0"
	// pressTime is how long an agent may take to take up a shutdown.
	pressTime = 2 * time.Second
	// lookFirst and lookLast space the looks at a program.
	lookFirst, lookLast = 20 * time.Millisecond, time.Second
)

// addAgent adds the line to an agent in the guest, last, so that devices of earlier
// machines keep their places.
func (w *jsonArgs) addAgent(s shape) {
	path := strings.ReplaceAll(filepath.Join(s.inside, agentSocket), ",", ",,") // a comma would begin another option
	w.args = append(w.args, "-chardev", "socket,id=agent,path="+path+",server=on,wait=off")
	w.addVirtio("serial", object{"id": "ports0", "max_ports": 2})
	w.add("-device", object{"driver": "virtserialport", "id": "agent0", "bus": "ports0.0", "chardev": "agent", "name": agentPort})
}

// Guest implements contract.Guester.
func (d *Driver) Guest(ctx context.Context, r contract.Ref) (contract.Guest, error) {
	out := contract.Guest{Agent: contract.AgentAbsent}
	g, err := d.started(r)
	if err != nil {
		return out, err
	}
	out.Memory = g.memory(ctx)
	out.Agent, err = g.looked(ctx, func(ctx context.Context, c talk) {
		// what an agent cannot tell is left out: not each knows each question
		out.Version, _ = c.Version(ctx)
		faces, _ := c.Interfaces(ctx)
		for _, i := range faces {
			out.Interfaces = append(out.Interfaces, contract.GuestInterface(i))
		}
		mounts, _ := c.Mounts(ctx)
		for _, m := range mounts {
			out.FileSystems = append(out.FileSystems, contract.GuestFileSystem(m))
		}
	})
	return out, err
}

// looked tells how the agent in a guest is, after a conversation with one that answers.
func (g *guest) looked(ctx context.Context, ask func(context.Context, talk)) (contract.AgentState, error) {
	there, err := g.agentThere(ctx)
	if err != nil || !there {
		return contract.AgentAbsent, err
	}
	ctx, cancel := g.d.within(ctx, 2*answerTime)
	defer cancel()
	c, err := g.talk(ctx, answerTime)
	if err != nil {
		return contract.AgentUnresponsive, busy(err)
	}
	defer c.close()
	ask(ctx, c)
	return contract.AgentConnected, nil
}

// Run implements contract.Guester.
func (d *Driver) Run(ctx context.Context, r contract.Ref, p contract.Program) (contract.Outcome, error) {
	var none contract.Outcome
	if err := p.Validate(); err != nil {
		return none, err
	}
	g, err := d.started(r)
	if err != nil {
		return none, err
	}
	there, err := g.agentThere(ctx)
	if err != nil {
		return none, err
	}
	if !there {
		return none, noAgent(r)
	}
	ctx, cancel := d.within(ctx, p.Time)
	defer cancel()
	out, err := g.run(ctx, p)
	var refused *qga.Error
	switch {
	case err == nil:
		return outcome(out), nil
	case errors.As(err, &refused):
		return none, errs.New(errs.GuestAgent, "the agent in the guest of VM %s refused: %s", r.VM, errs.Clip(refused.Desc)).Because(err)
	case ctx.Err() != nil && d.life.Err() == nil:
		return none, errs.New(errs.Timeout, "the program in the guest of VM %s was not done within %v; it may go on there", r.VM, p.Time).Because(err)
	case errs.Is(err, errs.Conflict):
		return none, err
	default:
		return none, errs.New(errs.GuestAgent, "the agent in the guest of VM %s does not answer", r.VM).Because(err)
	}
}

// run starts a program and looks until it has ended. The line is free between the
// looks: one that takes long is in nobody's way.
func (g *guest) run(ctx context.Context, p contract.Program) (qga.Ended, error) {
	c, err := g.talk(ctx, answerTime)
	if err != nil {
		return qga.Ended{}, err
	}
	pid, err := c.Start(ctx, p.Path, p.Args, p.Input)
	c.close()
	for wait := lookFirst; err == nil; wait = min(2*wait, lookLast) {
		if err = g.d.opt.Clock.Sleep(ctx, wait); err != nil {
			break
		}
		if c, err = g.talk(ctx, answerTime); errs.Is(err, errs.Conflict) {
			err = nil
			continue // somebody else asks something
		}
		if err != nil {
			break
		}
		var now qga.Ended
		now, err = c.Look(ctx, pid)
		c.close()
		if err == nil && now.Exited {
			return now, nil
		}
	}
	return qga.Ended{}, err
}

func outcome(e qga.Ended) contract.Outcome {
	out := contract.Outcome{Code: e.Code, Signal: e.Signal, Output: e.Out, Errors: e.Err, Cut: e.OutCut || e.ErrCut}
	if e.Signal != 0 {
		out.Code = 128 + e.Signal
	}
	for _, s := range []*[]byte{&out.Output, &out.Errors} {
		if len(*s) > contract.MaxOutput {
			*s, out.Cut = (*s)[:contract.MaxOutput], true
		}
	}
	return out
}

// busy gives an error that is not about the agent's silence.
func busy(err error) error {
	if errs.Is(err, errs.Conflict) {
		return err
	}
	return nil
}

// agentThere tells whether somebody in the guest has opened the line to its agent.
func (g *guest) agentThere(ctx context.Context) (bool, error) {
	if !g.rec.Agent {
		return false, nil // of an earlier program: it has no line
	}
	var lines []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	if err := g.tell(ctx, "query-chardev", nil, &lines); err != nil {
		return false, err
	}
	for _, l := range lines {
		if l.Label == "agent" {
			return l.Open, nil
		}
	}
	return false, nil
}

// talk is a conversation with the agent, the only one at a time.
type talk struct {
	*qga.Client
	free func()
}

func (t talk) close() {
	_ = t.Close()
	t.free()
}

// talk begins a conversation; t bounds the wait for its first answer. errs.Conflict
// while there is another.
func (g *guest) talk(ctx context.Context, t time.Duration) (talk, error) {
	select {
	case g.line <- struct{}{}:
	case <-ctx.Done():
		return talk{}, errs.New(errs.Conflict, "somebody else is asking the agent in the guest of VM %s", g.ref.VM).Because(ctx.Err())
	}
	free := func() { <-g.line }
	conn, err := g.dialInside(ctx, agentSocket)
	if err != nil {
		free()
		return talk{}, fmt.Errorf("reach the guest's agent: %w", err)
	}
	timed, cancel := g.d.within(ctx, t)
	defer cancel()
	c, err := qga.New(timed, conn)
	if err != nil {
		free()
		return talk{}, err
	}
	return talk{c, free}, nil
}

// powerDownByAgent asks the agent for a shutdown, if it is there and answers at once.
func (g *guest) powerDownByAgent(ctx context.Context) bool {
	if g.Status().Phase == vm.PhasePaused {
		return false // it would answer when it is too late
	}
	there, err := g.agentThere(ctx)
	if err != nil || !there {
		return false
	}
	ctx, cancel := g.d.within(ctx, pressTime)
	defer cancel()
	c, err := g.talk(ctx, pressTime)
	if err == nil {
		err = c.PowerDown(ctx)
		c.close()
	}
	if err != nil {
		g.d.log.Info("the agent in a guest has not said that it took up a shutdown: the power button is pressed, too", "vm", g.ref.VM, "error", err)
	}
	return err == nil
}

// dialInside connects to a socket that QEMU has made in its folder. That folder is the
// guest's user's: what lies there may be a link to anybody's socket, and is looked at
// before it is used.
func (g *guest) dialInside(ctx context.Context, name string) (net.Conn, error) {
	dir, err := unix.Open(g.at.inside(), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return nil, err
	}
	if s.Mode&unix.S_IFMT != unix.S_IFSOCK || (g.rec.UID != 0 && int(s.Uid) != g.rec.UID) {
		return nil, fmt.Errorf("%s is no socket of the guest's", name)
	}
	ctx, cancel := g.timed(ctx)
	defer cancel()
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
}
