package tests

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// BenchmarkRefusal measures a refusal, the whole process, with 2,000 other
// processes about: with a record that the kernel agrees with, without a record,
// and with a holder that was left behind.
func BenchmarkRefusal(b *testing.B) {
	folder := b.TempDir()
	lock := folder + "/lock"
	read, end, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	// By a shell: this process would have a descriptor for each, and, being
	// an ancestor, each would be looked at.
	idle := exec.Command("bash", "-c", "exec 3<&0; for ((i = 0; i < 2000; i++)); do cat <&3 & done; echo ready; exec >&-; wait")
	idle.Stdin = read
	ready, err := idle.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := idle.Start(); err != nil {
		b.Fatal(err)
	}
	defer idle.Wait()
	if n, err := ready.Read(make([]byte, 10)); n == 0 {
		b.Fatal(err)
	}
	read.Close()
	defer end.Close()
	for _, c := range []struct {
		name   string
		holder []string
	}{
		{"record", []string{binary, "--", "sh", "-c", "echo ready; read -r _"}},
		{"no record", []string{"flock", lock, "sh", "-c", "echo ready; read -r _"}},
		{"left behind", []string{"sh", "-c", `exec 9>>"$0"; flock -n 9; echo ready; read -r _`, lock}},
	} {
		b.Run(c.name, func(b *testing.B) {
			holder := exec.Command(c.holder[0], c.holder[1:]...)
			holder.Env = append(os.Environ(), "DCE_SCRAPE_LOCK_FILE="+lock)
			in, _ := holder.StdinPipe()
			out, _ := holder.StdoutPipe()
			if err := holder.Start(); err != nil {
				b.Fatal(err)
			}
			defer holder.Wait()
			defer in.Close()
			if n, err := out.Read(make([]byte, 10)); n == 0 {
				b.Fatal(err)
			}
			var took []time.Duration
			for b.Loop() {
				refused := exec.Command(binary, "--", "true")
				refused.Env = holder.Env
				begin := time.Now()
				if err := refused.Run(); refused.ProcessState.ExitCode() != 1 {
					b.Fatal(fmt.Errorf("not refused: %v", err))
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
		})
	}
}
