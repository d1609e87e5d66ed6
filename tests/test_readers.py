"""Original files, and the user's own, to a Dataset: made-up files in each format, every error, real ML-100K."""

import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4rec_core.data import (
    SourceError,
    content_hash,
    k_core,
    load,
    make_dataset,
    read_bookcrossing,
    read_ml1m,
    read_ml100k,
    read_own,
    subset_users,
    table_1,
)
from llama4rec_core.data.readers import ML100K_GENRES, ML100K_SHA256, movie_title

INTERACTIONS = "10\t2\t3\t100\n9\t2\t4\t90\n10\t1\t5\t80\n9\t1412\t1\t70\n10\t267\t2\t60\n"


def flags(*genres: str) -> str:
    return "|".join("1" if genre in genres else "0" for genre in ML100K_GENRES)


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "u.data").write_text(INTERACTIONS)
    (folder / "u.item").write_text(
        f"1|Postino, Il (1994)|01-Jan-1994||http://x|{flags('Drama', 'Romance')}\n"
        f"2|Misérables, Les (1995)|01-Jan-1995||http://x|{flags('Drama')}\n"
        f"267|unknown||||{flags('unknown')}\n"
        f"1412|Land Before Time III (1995) (V)|01-Jan-1995||http://x|{flags('Animation')}\n",
        encoding="latin-1",
    )
    (folder / "u.user").write_text("9|29|M|student|01002\n10|53|F|lawyer|90703\n")
    return folder


@pytest.fixture
def recbole(tmp_path):
    folder = tmp_path / "recbole"
    folder.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + INTERACTIONS)
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tPostino, Il\t1994\tDrama Romance\n2\tMisérables, Les\t1995\tDrama\n"
        "267\tunkonwn\tunkonwn\tunknown\n1412\tLand Before Time III (1995)\tV\tAnimation\n",
        encoding="utf-8",
    )
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "9\t29\tM\tstudent\t01002\n10\t53\tF\tlawyer\t90703\n"
    )
    return folder


def test_ml100k_by_hand(official):
    dataset = read_ml100k(official, sha256=None)
    assert dataset.users["user_id"].tolist() == ["9", "10"]  # by number, not by text
    assert dataset.items["item_id"].tolist() == ["1", "2", "267", "1412"]
    assert dataset.items["title"].tolist() == ["Il Postino", "Les Misérables", "unknown", "Land Before Time III"]
    assert dataset.items["year"].tolist() == ["1994", "1995", "", "1995"]
    assert dataset.items["genres"].tolist() == ["Drama|Romance", "Drama", "", "Animation"]
    assert dataset.users.iloc[1].to_dict() == {"user_id": "10", "age": "53", "gender": "F", "occupation": "lawyer"}
    assert dataset.interactions.to_numpy().tolist() == [  # file order
        [1, 1, 3, 100], [0, 1, 4, 90], [1, 0, 5, 80], [0, 3, 1, 70], [1, 2, 2, 60],
    ]  # fmt: skip
    assert dataset.interactions.dtypes.astype(str).tolist() == ["int32", "int32", "float32", "int64"]
    assert (dataset.name, dataset.scale, dataset.source) == ("ml-100k", (1.0, 5.0), "folder")


def test_both_layouts_give_the_same_dataset(official, recbole):
    one, other = read_ml100k(official, sha256=None), read_ml100k(recbole, sha256=None)
    pd.testing.assert_frame_equal(one.interactions, other.interactions)
    pd.testing.assert_frame_equal(one.items, other.items)
    pd.testing.assert_frame_equal(one.users, other.users)
    assert one.sha256 == other.sha256 == hashlib.sha256(INTERACTIONS.encode()).hexdigest()


def test_changed_ml100k_is_refused_and_told_how_to_load_it(official):
    with pytest.raises(ValueError, match=f"not the published ML-100K .*{ML100K_SHA256}.*read_own"):
        read_ml100k(official)


@pytest.mark.parametrize(
    "text, title, year",
    [
        ("Usual Suspects, The (1995)", "The Usual Suspects", "1995"),
        ("Great Day in Harlem, A (1994)", "A Great Day in Harlem", "1994"),
        ("American in Paris, An (1951)", "An American in Paris", "1951"),
        ("Enfer, L' (1994)", "L'Enfer", "1994"),
        ("Promise, The (Versprechen, Das) (1994)", "The Promise (Das Versprechen)", "1994"),
        ("Beans of Egypt, Maine, The (1994)", "The Beans of Egypt, Maine", "1994"),
        ("Paris, Texas (1984)", "Paris, Texas", "1984"),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", "1968"),
        ("Shadow and Light (1996) ", "Shadow and Light", "1996"),
        ("Land Before Time III (1995) (V)", "Land Before Time III", "1995"),
        ("1-900 (1994)", "1-900", "1994"),
        ("unknown", "unknown", ""),
    ],
)
def test_movie_title(text, title, year):
    assert movie_title(text) == (title, year)


def test_latin1_line_characters_do_not_end_a_line(official):
    text = (official / "u.item").read_bytes().replace(b"Time III", b"Time\x85III")
    (official / "u.item").write_bytes(text.replace(b"\n", b"\r\n"))
    assert len(read_ml100k(official, sha256=None).items) == 4


@pytest.mark.parametrize(
    "line, message",
    [
        ("10\t3\t4", r"u.data, line 6 has 3 fields; it needs 4"),
        ("10\t1412\tx\t5", r"u.data, line 6, column 'rating': 'x' is not a number"),
        ("10\t1412\tnan\t5", r"u.data, line 6, column 'rating': 'nan' is not a number"),
        ("10\t1412\t6\t5", r"u.data, line 6, column 'rating': 6 lies outside the scale 1 to 5"),
        ("10\t1412\t4\t5.5", r"u.data, line 6, column 'time': '5.5' is no whole number"),
        ("10\t1\t4\t5", r"u.data, line 6: user '10' and item '1' are there a second time \(first: line 3\)"),
        ("10\t\t4\t5", r"u.data, line 6, column 'item' is empty"),
        ("10\t7\t4\t5", r"u.item has no title for item '7' \(.*u.data, line 6\)"),
    ],
)
def test_each_bad_interaction_is_named(official, line, message):
    with (official / "u.data").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_ml100k(official, sha256=None)


def test_recbole_file_without_a_column(recbole):
    path = recbole / "ml-100k.inter"
    path.write_text(path.read_text().replace("rating:float", "stars:float"))
    with pytest.raises(ValueError, match="ml-100k.inter has no column 'rating' .it has: user_id, item_id, stars"):
        read_ml100k(recbole, sha256=None)


def test_empty_and_unreadable_files(official, recbole):
    (official / "u.data").write_text("\n")
    with pytest.raises(ValueError, match="u.data is empty"):
        read_ml100k(official, sha256=None)
    (recbole / "ml-100k.item").write_bytes("item_id:token\tmovie_title\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"ml-100k.item is not utf-8 text \(byte 25\)"):
        read_ml100k(recbole, sha256=None)


@pytest.fixture
def ml1m(tmp_path):
    (tmp_path / "ratings.dat").write_text("2::10::5::100\n1::10::3::50\n1::9::4::60\n")
    movies = "9::Café (1990)::Comedy|Drama\n10::Heat, The (1995)::Action\n11::Unseen (1999)::Horror\n"
    (tmp_path / "movies.dat").write_text(movies, encoding="latin-1")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    return tmp_path


def test_ml1m_by_hand(ml1m):
    dataset = read_ml1m(ml1m, sha256=None)
    assert dataset.items.to_numpy().tolist() == [
        ["9", "Café", "1990", "Comedy|Drama"],
        ["10", "The Heat", "1995", "Action"],
    ]  # nobody rated item 11
    assert dataset.users.to_numpy().tolist() == [
        ["1", "under 18", "F", "K-12 student"],
        ["2", "56+", "M", "self-employed"],
    ]
    assert dataset.interactions["user"].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="ratings.dat is not the file it should be.*read_own"):
        read_ml1m(ml1m)


@pytest.fixture
def bookcrossing(tmp_path):
    ratings = ['"User-ID";"ISBN";"Book-Rating"']
    ratings += [f'"{user}";"{book}";"{1 + (user + book) % 10}"' for user in range(1, 4) for book in range(10, 13)]
    ratings += ['"1";"13";"0"', '"2";"99";"7"', '"3";" 12";"9"', '"broken";"line']
    books = ['"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"S";"M";"L"']
    books += [f'"{book}";"Book {book} &amp; more";"Müller";"{book - 10}";"P";"s";"m";"l"' for book in range(10, 13)]
    books += [r'"11x";"A \"quoted\"; title";"B";"1999";"P";"s";"m";"l"', '"14";"broken";"B";"1999"']
    users = ['"User-ID";"Location";"Age"', '"1";"ulm, bw, germany";NULL', '"2";"rome, italy";"30"']
    for name, lines in (("BX-Book-Ratings", ratings), ("BX-Books", books), ("BX-Users", users)):
        (tmp_path / f"{name}.csv").write_text("\r\n".join(lines) + "\r\n", encoding="latin-1")
    return tmp_path


def test_bookcrossing_by_hand(bookcrossing):
    message = (
        r"2 broken lines \(BX-Book-Ratings.csv 1, BX-Books.csv 1, .* 0\), 1 repeated .* 1 ratings of books without"
    )
    with pytest.warns(UserWarning, match=message):
        dataset = read_bookcrossing(bookcrossing, k=3)
    assert (dataset.n_users, dataset.n_items, len(dataset.interactions)) == (3, 3, 9)
    assert dataset.items.iloc[0].tolist() == ["10", "Book 10 & more", "Müller", "", "P"]  # year 0 is unknown
    assert dataset.users.to_numpy().tolist() == [["1", "", "germany"], ["2", "30", "italy"], ["3", "", ""]]
    assert dataset.scale == (1, 10) and (dataset.interactions["time"] == 0).all()


@pytest.mark.filterwarnings("ignore:BookCrossing")
def test_bookcrossing_order_is_by_seed(bookcrossing):
    one, same, other = (read_bookcrossing(bookcrossing, seed=seed, k=1) for seed in (0, 0, 1))
    assert one.sha256 == same.sha256 != other.sha256
    columns = ["user", "item", "rating"]
    assert sorted(one.interactions[columns].to_numpy().tolist()) == sorted(
        other.interactions[columns].to_numpy().tolist()
    )
    assert one.interactions["user"].tolist() != sorted(one.interactions["user"])


@pytest.fixture
def own(tmp_path):
    interactions, items = tmp_path / "mine.csv", tmp_path / "things.csv"
    interactions.write_text("user,item,rating,time\nann,b,3.5,2\nbob,a,1,1\nann,a,5,1\n")
    items.write_text('item,title,colour\na,"Apple, red",red\nb,Pear,green\nc,Unseen,\n', encoding="utf-8-sig")
    return interactions, items


def test_own_csv_by_hand(own):
    dataset = read_own(*own)
    assert dataset.name == "mine" and dataset.source == "own" and dataset.scale == (1.0, 5.0)
    assert dataset.items.to_numpy().tolist() == [["a", "Apple, red", "red"], ["b", "Pear", "green"]]
    assert dataset.users.columns.tolist() == ["user_id"]
    assert dataset.sha256 == hashlib.sha256(b"ann\tb\t3.5\t2\nbob\ta\t1\t1\nann\ta\t5\t1\n").hexdigest()


def test_own_parquet_gives_the_same_as_csv(own, tmp_path):
    frame = pd.DataFrame({"user": [2, 1, 2], "item": [7, 7, 5], "rating": [3, 4, 5], "time": [10, 20, 30]})
    things = pd.DataFrame({"item": [5, 7], "title": ["five", "seven"], "price": [1.5, None]})
    frame.to_parquet(tmp_path / "i.parquet")
    things.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "i.csv", index=False)
    things.to_csv(tmp_path / "t.csv", index=False)
    users = tmp_path / "users.csv"
    users.write_text("user,age\n2,30\n")
    parquet = read_own(tmp_path / "i.parquet", tmp_path / "t.parquet", users, scale=(1, 5))
    text = read_own(tmp_path / "i.csv", tmp_path / "t.csv", users, scale=(1, 5))
    pd.testing.assert_frame_equal(parquet.interactions, text.interactions)
    pd.testing.assert_frame_equal(parquet.items, text.items)
    assert parquet.sha256 == text.sha256
    assert parquet.items["price"].tolist() == ["1.5", ""]
    assert parquet.users["age"].tolist() == ["", "30"]


@pytest.mark.parametrize(
    "which, text, message",
    [
        (0, "", "mine.csv is empty"),
        (0, "user,item,rating\n", "mine.csv is empty"),
        (0, "user,item,score\nann,a,1\n", r"mine.csv has no column 'rating' \(it has: user, item, score\)"),
        (0, "user,item,item,rating\nann,a,a,1\n", "mine.csv names a column twice"),
        (0, "user,item,rating\nann,a,1\nbob,a\n", "mine.csv, line 3 has 2 fields; it needs 3"),
        (0, 'user,item,rating\n"an\nn",a,1\nbob,a,good\n', "mine.csv, line 4, column 'rating': 'good' is not a number"),
        (0, "user,item,rating\nann,a,-1\n", "mine.csv, line 2, column 'rating': -1 lies outside the scale 1 to 5"),
        (0, "user,item,rating,time\nann,a,1,2020-01-01\n", "line 2, column 'time': '2020-01-01' is no whole number"),
        (0, "user,item,rating\nann,a,1\nann,a,2\n", "mine.csv, line 3: user 'ann' and item 'a' are there a second"),
        (0, "user,item,rating\nann,z,1\n", r"things.csv has no title for item 'z' \(.*mine.csv, line 2\)"),
        (1, "item,title\na,\nb,Pear\n", r"things.csv has no title for item 'a' \(.*mine.csv, line 3\)"),
        (1, "item,name\na,Apple\n", "things.csv has no column 'title'"),
        (1, "item,title\na,Apple\nb,Pear\na,Other\n", "things.csv, line 4: item 'a' is there a second time"),
        (1, "item,title,item_id\na,Apple,1\nb,Pear,2\n", "both a column 'item' and a column 'item_id'"),
    ],
)
def test_each_bad_own_file_is_named(own, which, text, message):
    own[which].write_text(text)
    with pytest.raises(ValueError, match=message):
        read_own(*own, scale=(1, 5))


def test_own_file_of_another_kind_encoding_or_place(own, tmp_path):
    with pytest.raises(ValueError, match="ends in '.xlsx'.*csv or .parquet"):
        read_own(tmp_path / "a.xlsx", own[1])
    with pytest.raises(ValueError, match="none.csv cannot be read: No such file"):
        read_own(tmp_path / "none.csv", own[1])
    own[1].write_bytes("item,title\na,Müsli\n".encode("latin-1"))
    with pytest.raises(ValueError, match="things.csv is not utf-8 text"):
        read_own(*own)
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="x.parquet is not readable as parquet"):
        read_own(tmp_path / "x.parquet", own[1])


def test_times_beyond_the_float_range_stay_exact():
    time = 2**53 + 1
    frame = pd.DataFrame({"user": ["u"], "item": ["i"], "rating": ["1"], "time": [str(time)]})
    dataset = make_dataset("x", frame, pd.DataFrame({"item": ["i"], "title": ["t"]}))
    assert dataset.interactions["time"].tolist() == [time]


def test_content_hash_is_over_the_lines():
    text = b"196\t242\t3\t881250949\n7\tx\t3.5\t0\n"
    assert content_hash(["196", "7"], ["242", "x"], [3.0, 3.5], [881250949, 0]) == hashlib.sha256(text).hexdigest()


def test_unknown_name():
    with pytest.raises(ValueError, match="'ml-10m' is unknown; choose ml-100k"):
        load("ml-10m")


def slow_k_core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    """Remove one offending row after another: the k-core is what is left, in whatever order one removes."""
    pairs = list(pairs)
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        bad = next((pair for pair in pairs if users[pair[0]] < k or items[pair[1]] < k), None)
        if bad is None:
            return pairs
        pairs.remove(bad)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=50).map(list), st.integers(1, 4))
def test_k_core_is_the_largest_part_where_all_have_k(pairs, k):
    frame = pd.DataFrame(pairs, columns=["user", "item"], index=np.arange(len(pairs)) + 5)
    expected = slow_k_core(pairs, k)
    if not expected:
        with pytest.raises(ValueError, match=f"{k}-core"):
            k_core(frame, k)
        return
    core = k_core(frame, k)
    assert list(core.itertuples(index=False, name=None)) == expected  # the same rows in the same order
    assert core["user"].value_counts().min() >= k and core["item"].value_counts().min() >= k
    assert core.index.tolist() == [row + 5 for row, pair in enumerate(pairs) if pair in set(expected)]


def test_k_below_one_is_refused():
    with pytest.raises(ValueError, match="k = 0"):
        k_core(pd.DataFrame({"user": [1], "item": [1]}), 0)


def test_subset_keeps_all_items_and_whole_histories(official):
    dataset = read_ml100k(official, sha256=None)
    for seed in range(4):
        small = subset_users(dataset, 1, seed)
        assert small.n_users == 1 and small.n_items == dataset.n_items
        old = dataset.users["user_id"].tolist().index(small.users["user_id"].iloc[0])
        rows = dataset.interactions[dataset.interactions["user"] == old].drop(columns="user").reset_index(drop=True)
        pd.testing.assert_frame_equal(small.interactions.drop(columns="user"), rows)
        assert set(small.interactions["user"]) == {0} and small.interactions["user"].dtype == np.int32
        assert small.sha256 != dataset.sha256
    assert subset_users(dataset, 2, seed=0).sha256 == dataset.sha256  # all users: nothing changes
    with pytest.raises(ValueError, match="n = 3 users"):
        subset_users(dataset, 3, 0)


def test_table_1_by_hand(official):
    row = table_1(read_ml100k(official, sha256=None)).iloc[0]
    assert row[["users", "items", "interactions", "min_per_user", "max_per_user"]].tolist() == [2, 4, 5, 2, 3]
    assert (row["density"], row["mean_per_user"], row["scale"]) == (5 / 8, 2.5, "1-5")


@pytest.mark.data
def test_real_ml100k_is_the_paper_s():
    try:
        dataset = load("ml-100k")
    except SourceError as error:
        pytest.skip(str(error))
    row = table_1(dataset).iloc[0]
    assert row[["users", "items", "interactions"]].tolist() == [943, 1682, 100_000]
    assert row["min_per_user"] == 20 and dataset.sha256 == ML100K_SHA256
    assert dataset.users["user_id"].tolist() == [str(number) for number in range(1, 944)]
    assert dataset.items["item_id"].tolist() == [str(number) for number in range(1, 1683)]
    assert dataset.items["title"].iloc[[0, 11, 13, 266, 542]].tolist() == [
        "Toy Story", "The Usual Suspects", "Il Postino", "unknown", "Les Misérables",
    ]  # fmt: skip
    assert dataset.items["year"].str.fullmatch(r"\d{4}").sum() == 1681
    assert dataset.items["genres"].iloc[0] == "Animation|Children's|Comedy"
    assert set(dataset.users["gender"]) == {"F", "M"} and dataset.users["occupation"].nunique() == 21
