"""What the endpoint engine needs to ask a server that speaks OpenAI's HTTP interface."""
