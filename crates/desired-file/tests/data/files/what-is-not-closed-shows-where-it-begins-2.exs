[
  {"web", %{cmd: ["/run"}}
]
