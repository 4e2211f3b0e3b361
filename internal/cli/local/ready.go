package local

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/novacron/novacron/internal/vocab/errs"
)

// notifyEnv names the descriptor on which a child tells its supervisor, one JSON
// document a line, how far it is. Nothing of it is secret to that supervisor.
const notifyEnv = "NOVACRON_NOTIFY_FD"

// Message is one such line; one of its fields is set.
type Message struct {
	// Say is for people.
	Say string `json:"say,omitempty"`
	// Ready is the end of a start.
	Ready *Summary `json:"ready,omitempty"`
	// Error is the other end of a start.
	Error *MessageError `json:"error,omitempty"`
}

// MessageError is an errs.Error between two processes of one program.
type MessageError struct {
	Code    errs.Code `json:"code"`
	Message string    `json:"message"`
	Cause   string    `json:"cause,omitempty"`
	// Running marks an instance that another process holds.
	Running bool `json:"running,omitempty"`
}

func (m *MessageError) err() error {
	e := errs.New(m.Code, "%s", m.Message)
	var causes []error
	if m.Running {
		causes = append(causes, ErrRunning)
	}
	if m.Cause != "" {
		causes = append(causes, errors.New(m.Cause))
	}
	if len(causes) > 0 {
		e = e.Because(errors.Join(causes...))
	}
	return e
}

// Notifier tells the supervisor, if there is one.
type Notifier struct {
	w       io.Writer
	watched bool
}

// Watched tells whether there is one.
func (n *Notifier) Watched() bool { return n.watched }

// NewNotifier takes the descriptor out of the environment, so that no process
// started from here inherits either.
func NewNotifier() *Notifier {
	fd, err := strconv.Atoi(os.Getenv(notifyEnv))
	_ = os.Unsetenv(notifyEnv)
	if err != nil || fd < 3 {
		return &Notifier{w: io.Discard}
	}
	unix.CloseOnExec(fd)
	return &Notifier{os.NewFile(uintptr(fd), "notify"), true}
}

func (n *Notifier) send(m Message) {
	b, err := json.Marshal(m)
	if err == nil {
		_, _ = n.w.Write(append(b, '\n')) // a supervisor that is gone does not listen
	}
}

// Say tells how far it is.
func (n *Notifier) Say(s string) { n.send(Message{Say: s}) }

// Ready tells that the start is over.
func (n *Notifier) Ready(s Summary) { n.send(Message{Ready: &s}) }

// Failed tells why there will be no start.
func (n *Notifier) Failed(err error) {
	if err == nil {
		return
	}
	m := &MessageError{Code: errs.CodeOf(err), Message: err.Error(), Running: errors.Is(err, ErrRunning)}
	if e, ok := errors.AsType[*errs.Error](err); ok {
		m.Message = e.Message
		if cause := e.Unwrap(); cause != nil {
			m.Cause = cause.Error()
		}
	}
	n.send(Message{Error: m})
}

// readMessages calls f for each line until the other end closes.
func readMessages(r io.Reader, f func(Message)) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var m Message
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			m = Message{Error: &MessageError{Code: errs.Internal, Message: fmt.Sprintf("a child said %q", errs.Clip(s.Text()))}}
		}
		f(m)
	}
}
