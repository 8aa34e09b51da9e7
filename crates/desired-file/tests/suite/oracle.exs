# Says of each file of a batch what Elixir makes of it, one line a file: `refused`, `parsed`, or the
# value in the notation of `oracle.rs`. Only files that are told to be data are evaluated.
#
# elixir oracle.exs DIRECTORY: files 0.exs, 1.exs, … and `data`, the numbers of those to evaluate.

defmodule Oracle do
  def show(nil), do: "n"
  def show(true), do: "t"
  def show(false), do: "f"
  def show(value) when value in -0x8000000000000000..0x7FFFFFFFFFFFFFFF, do: "i#{value}"
  # Its digits are not in the tree.
  def show(value) when is_integer(value), do: "I"
  def show(value) when is_float(value), do: "d" <> Base.encode16(<<value::float>>)
  def show(value) when is_binary(value), do: "s" <> Base.encode16(value)
  def show(value) when is_atom(value), do: "a" <> Base.encode16(Atom.to_string(value))
  def show(value) when is_list(value), do: "[" <> Enum.map_join(value, ",", &show/1) <> "]"

  def show(value) when is_tuple(value),
    do: "(" <> Enum.map_join(Tuple.to_list(value), ",", &show/1) <> ")"

  def show(value) when is_map(value) do
    entries = Enum.map(value, fn {key, value} -> show(key) <> "=" <> show(value) end)
    "{" <> Enum.join(Enum.sort(entries), ",") <> "}"
  end

  def verdict(text, data?) do
    case Code.string_to_quoted(text) do
      {:error, _} -> "refused"
      {:ok, quoted} when data? -> quoted |> Code.eval_quoted() |> elem(0) |> show()
      {:ok, _} -> "parsed"
    end
  rescue
    error -> "raised " <> inspect(error.__struct__)
  end
end

[directory] = System.argv()
data = directory |> Path.join("data") |> File.read!() |> String.split() |> MapSet.new()
count = directory |> File.ls!() |> Enum.count(&String.ends_with?(&1, ".exs"))

for number <- 0..(count - 1)//1 do
  text = File.read!(Path.join(directory, "#{number}.exs"))
  IO.puts(Oracle.verdict(text, MapSet.member?(data, "#{number}")))
end
