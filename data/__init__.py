"""Where training windows come from: corpora, their streams, and the conversations made of them."""
