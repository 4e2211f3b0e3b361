package flows_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/novacron/novacron/internal/control/controltest"
	"github.com/novacron/novacron/internal/control/flows"
	"github.com/novacron/novacron/internal/domain/job"
	"github.com/novacron/novacron/internal/domain/migration"
	"github.com/novacron/novacron/internal/domain/vm"
	"github.com/novacron/novacron/internal/engine/workflow/prove"
	"github.com/novacron/novacron/internal/nodelink"
	"github.com/novacron/novacron/internal/store"
)

// onTheMove makes a cluster with a VM that runs on n1, and has it begin to move to n2.
func onTheMove(t *testing.T, c *controltest.Cluster, before func(w *world)) (*world, func() job.State) {
	t.Helper()
	w := &world{Cluster: c, name: "vm"}
	n := w.NewVM(w.name, true)
	n.Node = "n1"
	_, err := w.Service.CreateVM(t.Context(), controltest.Admin(), n)
	if err := finish(t.Context(), w, err); err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(w)
	}
	a, err := w.Service.MigrateVM(t.Context(), controltest.Admin(), w.name, migration.Request{Node: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	return w, func() job.State {
		t.Helper()
		if err := w.Drive(t.Context()); err != nil {
			t.Fatal(err)
		}
		j, err := w.Service.Job(t.Context(), *a.Job)
		if err != nil {
			t.Fatal(err)
		}
		if j.State != job.Succeeded {
			t.Logf("it ended as %s: %s %s", j.State, j.ErrorCode, j.ErrorMessage)
		}
		return j.State
	}
}

// stands expects of a VM that it is as it should be, on its node, once.
func (w *world) stands(t *testing.T, on string, as vm.State) vm.View {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	v, err := w.Service.VM(ctx, w.name)
	if err != nil {
		t.Fatal(err)
	}
	if err := appears(ctx, w, w.name, as); err != nil {
		t.Error(err)
	}
	if v.Node == nil || v.Node.Name != on || v.Job != nil {
		t.Errorf("it is on %+v, held by %+v; want %s", v.Node, v.Job, on)
	}
	left, err := w.Leftovers(ctx)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	return v
}

var errCut = errors.New("nobody answers")

// The target's asking for the VM, and the answer to that, are lost for a while, or for good.
func TestSwapThatNobodyHears(t *testing.T) {
	for name, c := range map[string]struct {
		// asked and answered fail the n-th time, unless nil
		asked, answered func(n int64) error
		want            job.State
		on              string
	}{
		"AskedLate":     {asked: upTo(2), want: job.Succeeded, on: "n2"},
		"AnsweredLate":  {answered: upTo(1), want: job.Succeeded, on: "n2"},
		"NeverAsked":    {asked: always, want: job.Failed, on: "n1"},
		"NeverAnswered": {answered: always, want: job.Failed, on: "n1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
				w.Swapping, w.Swapped = hook(c.asked), hook(c.answered)
			})
			if got := drive(); got != c.want {
				t.Errorf("it ended as %s, want %s", got, c.want)
			}
			v := w.stands(t, c.on, vm.Running)
			m, err := lastMigration(t.Context(), w, w.name)
			if err != nil || (m.SwappedEpoch > 0) != (c.on == "n2") {
				t.Errorf("%+v %v", m, err)
			}
			if name == "NeverAnswered" && v.Intent.Epoch != 3 { // the swap, and the way back
				t.Errorf("its owner epoch is %d", v.Intent.Epoch)
			}
		})
	}
}

// Servers that hang keep no guest waiting while one answers.
func TestSwapPassesHangingServers(t *testing.T) {
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) { w.Nodes[1].Hang(5) })
	if got := drive(); got != job.Succeeded {
		t.Errorf("it ended as %s", got)
	}
	w.stands(t, "n2", vm.Running)
}

func upTo(n int64) func(int64) error {
	return func(at int64) error {
		if at <= n {
			return errCut
		}
		return nil
	}
}

func always(int64) error { return errCut }

func hook(f func(int64) error) func(*controltest.Node) error {
	if f == nil {
		return nil
	}
	var n atomic.Int64
	return func(*controltest.Node) error { return f(n.Add(1)) }
}

// The two nodes do not reach each other from the moment on at which the target asks for the
// VM: the control plane brings the source what became of it.
func TestNodesCutFromEachOtherAtTheSwap(t *testing.T) {
	for name, granted := range map[string]bool{"Granted": true, "NobodyAnswers": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var w *world
			w, drive := onTheMove(t, controltest.New(t, 2), func(of *world) {
				of.Swapping = func(*controltest.Node) error {
					of.Cut()
					if granted {
						return nil
					}
					return errCut
				}
			})
			want, on := job.Succeeded, "n2"
			if !granted {
				want, on = job.Failed, "n1"
			}
			if got := drive(); got != want {
				t.Errorf("it ended as %s, want %s", got, want)
			}
			w.stands(t, on, vm.Running)
		})
	}
}

// The agent of either node, or of both, dies as the target asks for the VM, before the
// answer or after it, and comes back: the VM runs once, where the row says.
func TestAgentsDieAtTheSwap(t *testing.T) {
	for name, dies := range map[string][]int{"Source": {0}, "Target": {1}, "Both": {0, 1}} {
		for _, after := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "BeforeTheAnswer", true: "AfterIt"}[after], func(t *testing.T) {
				t.Parallel()
				back := make(chan error, 1)
				w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
					var once atomic.Bool
					kill := func(*controltest.Node) error {
						if !once.CompareAndSwap(false, true) {
							return nil
						}
						go func() {
							var err error
							for _, n := range dies {
								w.Nodes[n].Kill()
							}
							for _, n := range dies {
								err = errors.Join(err, w.Nodes[n].Start(context.WithoutCancel(t.Context())))
							}
							back <- err
						}()
						return errCut
					}
					if after {
						w.Swapped = kill
					} else {
						w.Swapping = kill
					}
				})
				got := drive()
				if err := <-back; err != nil {
					t.Fatal(err)
				}
				on := map[bool]string{true: "n2", false: "n1"}[got == job.Succeeded]
				w.stands(t, on, vm.Running)
			})
		}
	}
}

// The source's host loses its power as the target asks for the VM, before the answer or after
// it, and is back at once: its record says that the VM should run, and that another node may
// have it. It runs once.
func TestSourceLosesItsPowerAtTheSwap(t *testing.T) {
	for name, after := range map[string]bool{"BeforeTheAnswer": false, "AfterIt": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			back := make(chan error, 1)
			w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
				var once atomic.Bool
				cut := func(*controltest.Node) error {
					if once.CompareAndSwap(false, true) {
						ctx := context.WithoutCancel(t.Context())
						err := w.Nodes[0].Reboot(ctx)
						if n := len(w.Nodes[0].Host.Executing()); n > 0 {
							err = errors.Join(err, fmt.Errorf("%d guests execute at the source", n))
						}
						w.Nodes[0].Kill()
						back <- errors.Join(err, w.Nodes[0].Start(ctx))
					}
					return nil
				}
				if after {
					w.Swapped = cut
				} else {
					w.Swapping = cut
				}
			})
			got := drive()
			if err := <-back; err != nil {
				t.Fatal(err)
			}
			if got != job.Succeeded {
				t.Errorf("it ended as %s", got)
			}
			w.stands(t, "n2", vm.Running)
		})
	}
}

// Servers that are asked for one swap at once give one answer, though each may have looked
// before another's commit.
func TestServersAnswerASwapAlike(t *testing.T) {
	told := make(chan []nodelink.SwapReply, 1)
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
		var once atomic.Bool
		w.Swapping = func(*controltest.Node) error {
			if once.CompareAndSwap(false, true) {
				told <- askedAtOnce(t, w, 3)
			}
			return nil
		}
	})
	if got := drive(); got != job.Succeeded {
		t.Errorf("it ended as %s", got)
	}
	answers := <-told
	for _, a := range answers {
		if a.Verdict != nodelink.Swapped {
			t.Errorf("one was told %+v", a)
		}
	}
	if len(answers) != 3 {
		t.Errorf("%d answers", len(answers))
	}
	w.stands(t, "n2", vm.Running)
}

// A migration that is being taken back does not give its target the VM, however late that
// asks: the job may have looked already whose it is.
func TestSwapThatComesTooLate(t *testing.T) {
	w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
		var once atomic.Bool
		w.Swapping = func(*controltest.Node) error {
			if !once.CompareAndSwap(false, true) {
				return nil
			}
			ctx := context.WithoutCancel(t.Context())
			m, err := lastMigration(ctx, w, w.name)
			if err == nil {
				err = w.Store.InTx(ctx, func(tx *store.Tx) error { return tx.MigrationClose(ctx, m) })
			}
			if err != nil {
				t.Error(err)
			}
			return nil
		}
	})
	if got := drive(); got != job.Failed {
		t.Errorf("it ended as %s", got)
	}
	w.stands(t, "n1", vm.Running)
}

// askedAtOnce asks for the swap of the VM several times, all of which have begun, and wait
// for its row, before the first ends.
func askedAtOnce(t *testing.T, w *world, times int) []nodelink.SwapReply {
	ctx := context.WithoutCancel(t.Context())
	m, err := lastMigration(ctx, w, w.name)
	if err != nil {
		t.Error(err)
		return nil
	}
	tx, err := w.DB.Owner.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, "SELECT 1 FROM vms WHERE id = $1 FOR UPDATE", m.VM)
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	answers := make(chan nodelink.SwapReply, times)
	for range times {
		go func() {
			a, err := w.Service.SwapVM(ctx, m.Target.Node, nodelink.Swap{Migration: m.ID, VM: m.VM, Epoch: m.SourceEpoch})
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	within, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for waiting := 0; waiting < times && err == nil; {
		err = w.DB.Owner.QueryRow(within, `SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.datname = current_database()`).Scan(&waiting)
	}
	if err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Error(err)
	}
	var out []nodelink.SwapReply
	for range times {
		out = append(out, <-answers)
	}
	return out
}

// The agent of either node, or of both, dies as a stream to the target is opened, and comes
// back: the same job moves the VM in the end, or leaves it where it was.
func TestAgentsDieWhileItMoves(t *testing.T) {
	for name, dies := range map[string][]int{"Source": {0}, "Target": {1}, "Both": {0, 1}} {
		for _, stream := range []string{"disks", "memory", "word"} {
			t.Run(name+"At_"+stream, func(t *testing.T) {
				t.Parallel()
				back := make(chan error, 1)
				w, drive := onTheMove(t, controltest.New(t, 2), func(w *world) {
					var once atomic.Bool
					w.Reaching = func(s string) error {
						if s == stream && once.CompareAndSwap(false, true) {
							go func() {
								var err error
								for _, n := range dies {
									w.Nodes[n].Kill()
								}
								for _, n := range dies {
									err = errors.Join(err, w.Nodes[n].Start(context.WithoutCancel(t.Context())))
								}
								back <- err
							}()
						}
						return nil
					}
				})
				got := drive()
				if err := <-back; err != nil {
					t.Fatal(err)
				}
				w.stands(t, map[bool]string{true: "n2", false: "n1"}[got == job.Succeeded], vm.Running)
			})
		}
	}
}

// A real guest that moves while it runs: the proof of its flow, on two hosts of QEMU.
func TestProofsOfLiveMigration(t *testing.T) {
	if !provesAll() {
		t.Skip("it takes minutes, and the same steps run beside it on simulated hosts: make proofs runs it")
	}
	prove.Prove(t, prove.Subject[flows.Env]{Flow: flows.VMMigrateLive(), Reuse: true, World: func(tb testing.TB) prove.World[flows.Env] {
		w := newWorld(controltest.NewQEMU(tb, 2), proofs[vm.JobMigrateLive])
		w.Accept = nil // who accepts it is no matter to a host
		return w
	}})
}
