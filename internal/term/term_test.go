package term

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestSafe(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"plain key/1", "plain key/1"},
		{"grüße 世界", "grüße 世界"},
		{"a\nb", `a\nb`},
		{"\x1b[2Jgone", `\x1b[2Jgone`},
		{"bad\xff\x01", `bad\xff\x01`},
		{"\x80\x05", `\x80\x05`},
		{"rtl\u202e", `rtl\u202e`},
		{"'quoted' \"twice\"", "'quoted' \"twice\""},
		{"'\n\"", `'\n"`},
	} {
		if got := Safe(c.in); got != c.want {
			t.Errorf("Safe(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestTableLinesUp(t *testing.T) {
	for name, s := range map[string]Style{"plain": Plain(), "coloured": Colored()} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			tab := NewTable("NODE", "ROLE", "LSN").Right(2).
				Row("1", s.Green("primary"), "1200").
				Row("22", "replica", "7").
				Row("3", "", "").
				Row("4")
			if err := tab.Write(&out, s); err != nil {
				t.Fatal(err)
			}
			want := "NODE  ROLE      LSN\n" +
				"1     primary  1200\n" +
				"22    replica     7\n" +
				"3\n" +
				"4\n"
			if got := stripColours(out.String()); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if s.On() != strings.Contains(out.String(), "\x1b[") {
				t.Errorf("colours on %v, output %q", s.On(), out.String())
			}
		})
	}
}

func TestColoursOnlyOnTerminals(t *testing.T) {
	none := func(string) string { return "" }
	if For(&bytes.Buffer{}, none).On() {
		t.Error("a buffer is no terminal")
	}
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) || For(f, none).On() {
		t.Error("a file is no terminal")
	}
	var missing *os.File
	if IsTerminal(missing) {
		t.Error("a nil file is no terminal")
	}
}

func stripColours(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == 0x1b {
			i += strings.IndexByte(text[i:], 'm')
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
