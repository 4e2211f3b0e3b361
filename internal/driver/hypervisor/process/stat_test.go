package process

import "testing"

func TestParseStatWithStrangeCommands(t *testing.T) {
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20 21"
	for _, comm := range []string{"(qemu)", "(a b)", "() R 1 (x)", "(evil) S 9 9 9)"} {
		s, err := parseStat([]byte("77 " + comm + tail))
		if err != nil || s.start != 4242 || s.state != 'S' {
			t.Errorf("%s: %+v, %v", comm, s, err)
		}
	}
	for _, bad := range []string{"", "77 (qemu", "77 (qemu) S 1", "77 (q)" + " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, s)
		}
	}
}

// Whatever a process calls itself, its start and state are read behind its name.
func FuzzStat(f *testing.F) {
	f.Add("cat", []byte("1 (cat) R 0 1 1 0 -1 4194304 104 0 0 0 0 0 0 0 20 0 1 0 4711 5"))
	f.Add("a) S 1 2", []byte(")"))
	f.Fuzz(func(t *testing.T, name string, line []byte) {
		if s, err := parseStat(line); err == nil && s.state == 0 {
			t.Errorf("%q: %+v", line, s)
		}
		s, err := parseStat([]byte("1 (" + name + ") R 0 1 1 0 -1 4194304 104 0 0 0 0 0 0 0 20 0 1 0 4711 5"))
		if err != nil || s.state != 'R' || s.start != 4711 {
			t.Errorf("the name %q leads to %+v, %v", name, s, err)
		}
	})
}
