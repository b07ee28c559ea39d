package tests

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A contestant is one way to do what a part of the benchmark measures.
type contestant struct {
	name    string
	measure func() float64 // takes one sample
	samples []float64
	targets []target
}

// A target is what a contestant's p10, the sample that a tenth is below and which other
// work on the machine disturbs least, may be at most: so many times that of the first
// contestant whose name begins with of, or, without one, a value. Machines differ, so a
// missed one is only reported.
type target struct {
	most float64
	of   string
}

// The contestants that the others are compared to, by the beginning of their
// names.
const (
	theFlock = "flock"
	theBash  = "bash functions"
)

// A table is printed row by row, as its parts are measured: hence the fixed
// widths. It is Markdown too.
type table struct{ print func(line string) }

// Of a negative width are the columns of words, which begin at the left.
var columns = []struct {
	name  string
	width int
}{{"what", -41}, {"by", -30}, {"p10", 7}, {"median", 7}, {"p99", 7}, {"× flock: p10", 12}, {"median", 7}, {"× bash", 6}, {"target", -3}}

func (t table) head() {
	var names, rules []string
	for _, c := range columns {
		names = append(names, c.name)
		if rule := strings.Repeat("-", max(c.width, -c.width)-1); c.width > 0 {
			rules = append(rules, rule+":")
		} else {
			rules = append(rules, rule+"-")
		}
	}
	t.row(names)
	t.row(rules)
}

func (t table) row(cells []string) {
	var line strings.Builder
	for i, cell := range cells {
		fmt.Fprintf(&line, "| %*s ", columns[i].width, cell)
	}
	t.print(line.String() + "|")
}

// part prints a row for each contestant.
func (t table) part(what string, contestants []*contestant) {
	for _, c := range contestants {
		slices.Sort(c.samples)
	}
	// times is how many times a quantile of another one c's is; NaN where there
	// is no other, or nothing to divide by.
	times := func(c *contestant, of string, q float64) float64 {
		i := slices.IndexFunc(contestants, func(c *contestant) bool { return strings.HasPrefix(c.name, of) })
		if i < 0 || contestants[i].quantile(q) == 0 {
			return math.NaN()
		}
		return c.quantile(q) / contestants[i].quantile(q)
	}
	for _, c := range contestants {
		var verdicts []string
		for _, goal := range c.targets {
			got, limit := c.quantile(p10), fmt.Sprint("≤ ", goal.most)
			if goal.of != "" {
				got, limit = times(c, goal.of, p10), limit+" × "+goal.of
			}
			if got <= goal.most {
				verdicts = append(verdicts, limit+": met")
			} else {
				verdicts = append(verdicts, limit+": missed")
			}
		}
		t.row([]string{what, c.name, number(c.quantile(p10)), number(c.quantile(0.5)), number(c.quantile(0.99)),
			number(times(c, theFlock, p10)), number(times(c, theFlock, 0.5)), number(times(c, theBash, p10)), strings.Join(verdicts, ", ")})
	}
}

const p10 = 0.1

// quantile is the lowest sample that is not below the share q of all of them,
// which are sorted.
func (c *contestant) quantile(q float64) float64 {
	return c.samples[max(int(math.Ceil(q*float64(len(c.samples))))-1, 0)]
}

// number prints a figure to three digits or so, as noise leaves no more.
func number(n float64) string {
	switch {
	case math.IsNaN(n):
		return ""
	case n == math.Trunc(n) || n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.2f", n)
}
