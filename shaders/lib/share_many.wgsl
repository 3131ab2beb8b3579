// share, within a function: element i of what the S lanes loaded as part0, part1, …, one element each at a time.
let b{i} = subgroupBroadcast(part{i/S}, {i%S}u);
