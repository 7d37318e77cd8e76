"""What is written is there whole, whoever else writes it."""

from concurrent.futures import ThreadPoolExecutor

from cp_vision.shared.files import write_text


def test_a_text_that_several_write_at_once_is_always_whole(tmp_path):
    path = tmp_path / "table.csv"
    texts = [letter * 200_000 for letter in "ab"]
    write_text(path, texts[0])

    def write(text):
        for _ in range(200):
            write_text(path, text)

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, text) for text in texts]
        while not all(writer.done() for writer in writers):
            assert path.read_text() in texts
        for writer in writers:
            writer.result()
    assert [one.name for one in tmp_path.iterdir()] == ["table.csv"]
