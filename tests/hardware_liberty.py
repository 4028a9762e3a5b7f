"""A small Liberty file, written by hand: three gates, one with three states, and a flip-flop."""

from __future__ import annotations

TINY = """
/* a library of three cells and a flip-flop */
library(tiny) {
  nom_voltage : 1.2;
  capacitive_load_unit (1, pf);
  cell (NAND) { area : 8;
    pin(A) { direction : input; capacitance : 0.01; }
    pin(B) { direction : input; capacitance : 0.02; }
    pin(Y) { direction : output; function : "(A B)'";
      timing() { related_pin : "A";
        cell_rise(t) { index_1 ("0.0, 0.1"); index_2 ("0.1, 0.2, 0.3"); values ("0.1, 0.2, 0.3", "0.3, 0.4, 0.5"); }
        cell_fall(t) { index_1 ("0.0, 0.1"); index_2 ("0.1, 0.2, 0.3"); values ("0.1, 0.2, 0.3", "0.3, 0.6, 0.5"); }
      } } }
  cell (NOT) { area : 6;
    pin(A) { direction : input; capacitance : 0.01; }
    pin(Y) { direction : output; function : "!A";
      timing() { related_pin : "A";
        cell_rise(t) { index_1 ("0.0, 0.1"); index_2 ("0.1"); values ("0.1, 0.3"); } } } }
  cell (BUFF) { area : 9;
    pin(A) { direction : input; capacitance : 0.01; }
    pin(Y) { direction : output; function : "A"; } }
  cell (TRI) { area : 9;
    pin(A) { direction : input; } pin(EN) { direction : input; }
    pin(Y) { direction : output; function : "A"; three_state : "!EN"; } }
  cell (FLOP) { area : 40; ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; }
    pin(D) { direction : input; capacitance : 0.012; }
    pin(CK) { direction : input; clock : true; capacitance : 0.015; }
    pin(Q) { direction : output; function : "IQ"; } }
}
"""
