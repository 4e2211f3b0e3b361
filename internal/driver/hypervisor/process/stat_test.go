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
