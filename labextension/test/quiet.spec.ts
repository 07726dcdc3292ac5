import { untracked } from '../src/quiet';

it('requests that run no code do not make a kernel look idle or busy', () => {
  const types = JSON.parse(untracked('["comm_info_request"]')) as string[];
  expect(types).toEqual(
    expect.arrayContaining(['comm_info_request', 'comm_open', 'create_subshell_request'])
  );
  expect(types).not.toContain('comm_msg'); // a widget's callback is a user's code
  expect(types).not.toContain('execute_request');
});

it('saying it twice changes nothing, and an option that is no list is left alone', () => {
  expect(untracked(untracked(''))).toBe(untracked(''));
  expect(untracked('{"a": 1}')).toBe('{"a": 1}');
  expect(untracked('not JSON')).toBe('not JSON');
});
